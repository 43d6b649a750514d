"""What every benchmark prints and writes: figures beside the targets that they are held to."""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab import cgroup_version


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, once or in several repetitions.

    at_most, at_least: the target that the median is held to. A target is about the median: one
    repetition that something else on the machine disturbed says nothing about the agent.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    at_most: float | None = None
    at_least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"≤ {_number(self.at_most)}"
        return "" if self.at_least is None else f"≥ {_number(self.at_least)}"

    @property
    def verdict(self) -> str:
        """met, MISSED, or nothing where there is no target."""
        if self.at_most is not None:
            return "met" if self.median <= self.at_most else "MISSED"
        if self.at_least is not None:
            return "met" if self.median >= self.at_least else "MISSED"
        return ""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


def run(
    title: str,
    measure: Callable[[argparse.Namespace], Sequence[Figure]],
    parsed: argparse.Namespace,
) -> None:
    """Measure, print, write; exit 0 whatever the figures, and otherwise if there are none."""
    # An end by a signal still unwinds, so that what was started and made goes too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    machine = _machine()
    print(f"{title}\n{machine}", flush=True)
    try:
        figures = measure(parsed)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    print(_table(figures), flush=True)
    if parsed.json:
        record = {
            "benchmark": title,
            "machine": machine,
            "figures": [
                {**asdict(figure), "median": figure.median, "verdict": figure.verdict}
                for figure in figures
            ],
        }
        parsed.json.write_text(json.dumps(record, indent=2) + "\n")


def say(text: str) -> None:
    """One line on how far the benchmark is."""
    print(f"  … {text}", file=sys.stderr, flush=True)


def _machine() -> str:
    """The machine, and how busy it was already: a busy one disturbs the figures."""
    now = datetime.now(UTC)
    cpus = len(os.sched_getaffinity(0))
    return (
        f"{now:%Y-%m-%d %H:%M} UTC · {cpus} CPUs ({_cpu_model()}) · kernel {platform.release()}"
        f" · cgroup v{cgroup_version()} · load average before {os.getloadavg()[0]:.1f}"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _table(figures: Sequence[Figure]) -> str:
    rows = [["", "min", "median", "max", "", "target", ""]]
    for each in figures:
        numbers = (min(each.values), each.median, max(each.values))
        rows.append([each.name, *map(_number, numbers), each.unit, each.target, each.verdict])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = (1, 2, 3)
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(["", *lines])


def _number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.0001 else f"{value:.6f}"
