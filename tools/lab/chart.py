"""A picture of who got how much over time: stacked bands, as an SVG that needs nothing but itself.

It stands on a card of its own, so it reads the same on a light page and on a dark one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from xml.sax.saxutils import escape, quoteattr

_WIDTH, _HEIGHT = 1000, 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 790, 146, 486
_INK, _GREY, _LINE, _CARD = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

_ROOM_FOR_TEXT = 20.0
"""Height of a band below which its figure does not fit into it."""
_LABEL_APART = 44.0


@dataclass(frozen=True, slots=True)
class Band:
    """One of those that share, from the bottom up: `note` stands below its name."""

    name: str
    note: str
    colour: str
    shares: Sequence[float]
    """0..1, one for each time of the chart."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the time. `shares`, one a band, were measured from `measured` to its end."""

    name: str
    start: float
    end: float
    measured: float
    shares: Sequence[float]
    stands_out: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything that the picture says. Times are in seconds, ascending."""

    title: str
    subtitle: str
    footer: str
    times: Sequence[float]
    bands: Sequence[Band]
    phases: Sequence[Phase]

    def svg(self) -> str:
        """The picture, as the text of an SVG file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
            f' width="{_WIDTH}" height="{_HEIGHT}" font-family="{_FONT}" role="img"'
            f" aria-label={quoteattr(self.title)}>"
        )
        parts = [
            head,
            _box(0.5, 0.5, _WIDTH - 1, _HEIGHT - 1, _CARD, corner=12, stroke=_LINE),
            _text(32, 46, self.title, size=22, weight=700),
            _text(32, 74, self.subtitle, size=15, fill=_GREY),
            *self._areas(),
            *self._axes(),
            *(part for phase in self.phases for part in self._phase(phase)),
            *self._labels(),
            _text(32, _HEIGHT - 20, self.footer, size=12, fill=_GREY),
            "</svg>\n",
        ]
        return "\n".join(parts)

    def _x(self, time: float) -> float:
        first, last = self.times[0], self.times[-1]
        return _LEFT + (time - first) / (last - first) * (_RIGHT - _LEFT)

    def _areas(self) -> Iterator[str]:
        """Each band from the top of those below it to its own."""
        columns = [[0.0, *accumulate(column)] for column in self._columns()]
        for number, band in enumerate(self.bands):
            floor = [(self._x(t), _y(c[number])) for t, c in zip(self.times, columns, strict=True)]
            top = [
                (self._x(t), _y(c[number + 1])) for t, c in zip(self.times, columns, strict=True)
            ]
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*top, *reversed(floor)])
            yield (
                f'<polygon points="{points}" fill="{band.colour}" stroke="{_CARD}"'
                ' stroke-width="1.5" stroke-linejoin="round"/>'
            )

    def _columns(self) -> Iterator[tuple[float, ...]]:
        return zip(*(band.shares for band in self.bands), strict=True)

    def _axes(self) -> Iterator[str]:
        for percent in (0, 25, 50, 75, 100):
            y = _y(percent / 100)
            yield _line(_LEFT - 5, y, _LEFT, y, _GREY)
            yield _text(_LEFT - 10, y + 4, f"{percent} %", size=12, fill=_GREY, anchor="end")
        span = self.times[-1] - self.times[0]
        step = next((s for s in (5, 10, 20, 30, 60, 120) if span / s <= 8), 300)
        for seconds in range(0, int(span) + 1, step):
            x = self._x(self.times[0] + seconds)
            yield _line(x, _BOTTOM, x, _BOTTOM + 5, _GREY)
            yield _text(x, _BOTTOM + 20, f"{seconds} s", size=12, fill=_GREY, anchor="middle")

    def _phase(self, phase: Phase) -> Iterator[str]:
        """Its name above the bands, a line where it starts, and its figures in the bands."""
        left, right = self._x(phase.start), self._x(phase.end)
        fill = _INK if phase.stands_out else "#eaeef2"
        yield _box(left + 1, _TOP - 50, right - left - 2, 26, fill, corner=6)
        yield _text(
            (left + right) / 2,
            _TOP - 32,
            phase.name,
            size=14,
            fill=_CARD if phase.stands_out else _INK,
            weight=700 if phase.stands_out else 500,
            anchor="middle",
        )
        if phase is not self.phases[0]:
            yield _line(left, _TOP, left, _BOTTOM, _CARD, width=3)
        middle = (self._x(max(phase.measured, phase.start)) + right) / 2
        for share, (low, high) in zip(
            phase.shares, pairwise([0.0, *accumulate(phase.shares)]), strict=True
        ):
            fits = _y(low) - _y(high) >= _ROOM_FOR_TEXT
            if fits or high > 0.99:  # above the topmost band there is room
                yield _text(
                    middle,
                    (_y(low) + _y(high)) / 2 + 5 if fits else _TOP - 8,
                    f"{share:.0%}".replace("%", " %"),
                    size=15 if fits else 13,
                    fill=_CARD if fits else _INK,
                    weight=700,
                    anchor="middle",
                )

    def _labels(self) -> Iterator[str]:
        """Names at the bands' ends, moved apart where they would meet."""
        tops = [0.0, *accumulate(self.phases[-1].shares)]
        places = [(_y(low) + _y(high)) / 2 for low, high in pairwise(tops)]
        for index in range(1, len(places)):
            places[index] = min(places[index], places[index - 1] - _LABEL_APART)
        for band, y in zip(self.bands, places, strict=True):
            yield _box(_RIGHT + 14, y - 17, 5, 36, band.colour, corner=2.5)
            yield _text(_RIGHT + 28, y - 2, band.name, size=16, weight=700)
            yield _text(_RIGHT + 28, y + 17, band.note, size=14, fill=_GREY)


def _y(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)


def _box(
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    *,
    corner: float,
    stroke: str = "none",
) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{corner}"'
        f' fill="{fill}" stroke="{stroke}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"'
        f' stroke-width="{width}"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int,
    fill: str = _INK,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )
