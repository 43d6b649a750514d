"""Words for error messages: what a wrong name may have meant, and a value that fits a line."""

import difflib
from collections.abc import Iterable

_LONGEST = 40  # comparing costs the square of the length, and no known name is longer


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" with the known name most like `name`, or "" if none is."""
    close = difflib.get_close_matches(name, list(known), n=1) if len(name) <= _LONGEST else []
    return f"; did you mean {close[0]}?" if close else ""


def shortened(text: str, limit: int = 60) -> str:
    """Return the beginning of a text, with escapes for what would break or hide in a line."""
    letters = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:limit])
    return "".join(letters) + ("…" if len(text) > limit else "")
