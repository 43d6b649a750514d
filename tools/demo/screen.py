"""The live view: a table refreshed in place on a terminal, a line now and then anywhere else."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PLAIN_EVERY = 5.0
"""Seconds between two lines where there is no terminal."""

_LEAST_COLUMNS, _LEAST_LINES = 80, 20
_LEGEND = "EFFECTIVE: the nice that its weight means. WAIT: runnable, but not running."
_LONGEST_BAR = 48
_EIGHTHS = " ▏▎▍▌▋▊▉"
_COLOURS = {"gold": "38;5;178", "silver": "38;5;110", "bronze": "38;5;173"}
_DIM, _BOLD, _GREEN, _RED, _POD = "2", "1", "32", "31", "38;5;72"


@dataclass(frozen=True, slots=True)
class Line:
    """What the table says of one member; `wait` and `share` are 0..1."""

    name: str
    nice: int
    effective: int
    weight: int
    wait: float
    share: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """The whole of a moment: `phase` is the place of the running one in `phases`, and `load` the
    load average of a minute, as everybody knows it.
    """

    at: float
    phases: Sequence[str]
    phase: int
    caption: str
    load: float
    lines: Sequence[Line]


class Screen:
    """A context manager: the cursor, hidden in between, is always shown again."""

    def __init__(self) -> None:
        size = shutil.get_terminal_size()
        self._columns = size.columns
        self._bar = min(_LONGEST_BAR, size.columns - len(table_head()) - 3)
        self._live = (
            sys.stdout.isatty()
            and os.environ.get("TERM", "dumb") != "dumb"
            and size.columns >= _LEAST_COLUMNS
            and size.lines >= _LEAST_LINES
        )
        self._colours = self._live and "NO_COLOR" not in os.environ
        self._drawn = 0
        self._told: tuple[int, str] | None = None
        self._told_at = 0.0

    def __enter__(self) -> Self:
        if self._live:
            print("\x1b[?25l", end="", flush=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            print("\x1b[?25h", end="", flush=True)

    def say(self, text: str = "") -> None:
        """A line that stays."""
        self._drawn = 0
        print(text, flush=True)

    def verdict(self, good: bool, text: str) -> None:
        """A line that stays: a claim, and whether it holds."""
        mark = self._paint("✓", _GREEN) if good else self._paint("✗ not so:", _RED)
        self.say(f"  {mark} {text}")

    def show(self, view: View) -> None:
        """The moment: over the one before, or as a line when something is new."""
        if self._live:
            rows = list(self._draw(view))
            up = f"\x1b[{self._drawn}A" if self._drawn else ""
            print(up + "".join(f"\x1b[2K{row}\n" for row in rows) + "\x1b[J", end="", flush=True)
            self._drawn = len(rows)
            return
        news = (view.phase, view.caption)
        if news != self._told:
            print(f"{clock(view.at)} {view.phases[view.phase]}: {view.caption}", flush=True)
            self._told, self._told_at = news, view.at
        elif view.at - self._told_at >= PLAIN_EVERY:
            shares = ", ".join(f"{line.name} {percent(line.share)}" for line in view.lines)
            print(f"{clock(view.at)}   load {view.load:.2f}; {shares}", flush=True)
            self._told_at = view.at

    def _draw(self, view: View) -> list[str]:
        steps = [self._step(name, index - view.phase) for index, name in enumerate(view.phases)]
        numbers = self._paint(f"{clock(view.at)}  load {view.load:.2f}", _DIM)
        rows = ["", f"  {'   '.join(steps)}   {numbers}"]
        rows += [self._paint(self._cut(f"  {view.caption}"), _DIM), ""]
        rows.append(self._paint(table_head(), _BOLD))
        rows += [self._row(line) for line in view.lines]
        rows += ["", self._paint(f"  {_LEGEND}", _DIM)]
        rows += [self._paint(self._cut(f"  {x.name}: {x.why}"), _DIM) for x in view.lines if x.why]
        return rows

    def _step(self, name: str, distance: int) -> str:
        if distance < 0:
            return self._paint(f"✓ {name}", _GREEN)
        return self._paint(f"▶ {name}", _BOLD) if distance == 0 else self._paint(f"· {name}", _DIM)

    def _row(self, line: Line) -> str:
        colour = _COLOURS.get(line.name.partition("/")[0], _POD)
        cells = (
            f"  {line.name:<14} {signed(line.nice):>5} {signed(line.effective):>10} "
            f"{line.weight:>7} {percent(line.wait):>6} {percent(line.share, '.1f'):>8}  "
        )
        return cells + self._paint(bar(line.share, self._bar), colour)

    def _cut(self, text: str) -> str:
        """No line may wrap: the cursor goes up by lines."""
        return text[: self._columns - 1]

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


def table_head() -> str:
    """The titles above the rows of the live table."""
    return f"  {'':<14} {'NICE':>5} {'EFFECTIVE':>10} {'WEIGHT':>7} {'WAIT':>6} {'SHARE':>8}"


def bar(share: float, cells: int) -> str:
    """A bar of so many cells for the whole, in eighths of a cell."""
    eighths = round(share * cells * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def signed(nice: int) -> str:
    """A nice as people write it: +10, 0, −5."""
    return f"{nice:+d}".replace("-", "−") if nice else "0"


def percent(part: float, form: str = ".0f") -> str:
    """A part of one in percent, as the form says: `.1f`, `+z.1f`."""
    return f"{100 * part:{form}} %".replace("-", "−")


def clock(seconds: float) -> str:
    """m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
