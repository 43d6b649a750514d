"""Durations as policies write them: whole hours, minutes and seconds, as in `1h30m`."""

import re

ALLOWED = "whole hours, minutes and seconds in this order, like 15s, 5m, 1h30m"

# Nine digits are more than any duration needs and keep a hostile number from becoming a big one.
_DURATION = re.compile(
    r"(?=.)(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?", flags=re.ASCII
)


def parse_duration(text: str) -> float:
    """Return the seconds that `text` means. Raises ValueError for anything but 1h2m3s forms."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text!r} (allowed {ALLOWED})")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as `seconds`, rounded to whole ones."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{amount}{unit}" for amount, unit in parts if amount) or "0s"
