"""The figures at the end: what was measured, beside the kernel's own arithmetic."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from demo.cast import BASELINE, ORDINARY_POD
from demo.meter import Shares
from demo.screen import percent, signed
from lab import cgroup_version
from peacemaker.claim import REWRITE_TOLERANCE, Claimant, guard
from peacemaker.nice import CPU_SHARES, CPU_WEIGHT

TOLERANCE = 0.15
"""How far a share may be from what the weights say, as a part of it."""
POD_TOLERANCE = 0.05
"""How much of its share the ordinary pod may seem to lose: what measuring itself is off by."""


@dataclass(frozen=True, slots=True)
class Result:
    """Shares in the three phases, and what the agent had written when the last was measured: the
    weights of all, the nices of the VMs.
    """

    names: Sequence[str]
    equal: Shares
    nice_alone: Shares
    peace: Shares
    weights: Mapping[str, int]
    nices: Mapping[str, int]

    def table_weights(self) -> Mapping[str, float]:
        """What the kernel's table of nice and the claim guard make of the baselines, unrounded."""
        limits = CPU_WEIGHT if cgroup_version() == 2 else CPU_SHARES
        claimants = [Claimant(name, BASELINE, nice) for name, nice in self.nices.items()]
        granted = {name: share.wanted for name, share in guard(claimants, limits).items()}
        return {name: granted.get(name, float(BASELINE)) for name in self.names}

    def expected(self) -> list[float]:
        """The shares that the written weights mean to the kernel."""
        total = sum(self.weights.values())
        return [self.weights[name] / total for name in self.names]

    def errors(self) -> list[float]:
        """How far each share under the agent is from the expected one, as a part of it."""
        return [
            found / meant - 1 for found, meant in zip(self.peace.each, self.expected(), strict=True)
        ]

    def table(self) -> Iterator[str]:
        """The figures: a line for each member, below two lines of titles."""
        yield _row("", "", "equal", "nice", "with", "by its", "", "weight", "kernel's")
        yield _row("", "nice", "weights", "alone", "agent", "weight", "off", "written", "table")
        table = self.table_weights()
        for index, name in enumerate(self.names):
            shares = [self.equal.each, self.nice_alone.each, self.peace.each, self.expected()]
            equal, alone, agent, expected = (percent(each[index], ".1f") for each in shares)
            off = percent(self.errors()[index], "+z.1f")
            nice = signed(self.nices.get(name, 0))
            weights = str(self.weights[name]), f"{table[name]:.1f}"
            yield _row(name, nice, equal, alone, agent, expected, off, *weights)

    def verdicts(self) -> Iterator[tuple[bool, str]]:
        """Each claim of the demonstration, with its figure, and whether it holds."""
        unequal = max(abs(share * len(self.names) - 1) for share in self.equal.each)
        yield (
            unequal <= TOLERANCE,
            f"equal weights mean equal shares ({percent(unequal, '.1f')} off at most)",
        )
        moved = max(
            abs(after / before - 1)
            for before, after in zip(self.equal.each, self.nice_alone.each, strict=True)
        )
        yield (
            moved <= TOLERANCE,
            f"nice alone moves nothing (no share changed by more than {percent(moved, '.1f')})",
        )
        off = max(map(abs, self.errors()))
        yield (
            off <= TOLERANCE,
            f"with the agent each gets what its weight says ({percent(off, '.1f')} off at most)",
        )
        table = self.table_weights()
        gap = max(abs(self.weights[name] / table[name] - 1) for name in self.names)
        yield (
            # A written weight is a whole number.
            gap <= REWRITE_TOLERANCE + 0.5 / min(table.values()),
            f"the weights are the kernel's nice table, claim-guarded ({percent(gap, '.1f')} off)",
        )
        pod = self.names.index(ORDINARY_POD)
        before, after = self.equal.each[pod], self.peace.each[pod]
        yield (
            after >= before * (1 - POD_TOLERANCE),
            f"the ordinary pod loses nothing ({percent(before, '.1f')} → {percent(after, '.1f')})",
        )


def _row(name: str, *cells: str) -> str:
    widths = (5, 7, 7, 7, 7, 7, 8, 8)
    aligned = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"  {name:<14} {' '.join(aligned)}"
