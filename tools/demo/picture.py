"""The demonstration's picture: who had how much of the CPU, from the first phase to the last."""

from collections.abc import Sequence
from dataclasses import replace

from demo.cast import BASELINE, FAVOURED, ORDINARY_POD, RESTRAINED
from demo.meter import Shares
from demo.result import Result
from demo.screen import percent, signed
from lab.chart import Band, Chart, Phase

_COLOURS = {"gold": "#c58a00", "silver": "#7d8ea8", "bronze": "#b0562a", ORDINARY_POD: "#3f8f6b"}


def picture(course: Sequence[Shares], phases: Sequence[Phase], result: Result) -> Chart:
    """The ordinary pod is the lowest band: there one sees best that it stays as it is."""
    course = [replace(course[0], until=phases[0].start), *course]
    last = len(result.names) - 1
    order = [last, *range(last)]
    before, alone, after = (
        {name: percent(share) for name, share in zip(result.names, shares.each, strict=True)}
        for shares in (result.equal, result.nice_alone, result.peace)
    )
    return Chart(
        title=(
            f"{FAVOURED} {before[FAVOURED]} → {after[FAVOURED]} of the CPU,"
            f" {RESTRAINED} {before[RESTRAINED]} → {after[RESTRAINED]}"
        ),
        subtitle=(
            f"Nice alone left them at {alone[FAVOURED]} and {alone[RESTRAINED]}."
            f" The ordinary pod beside them: {before[ORDINARY_POD]} → {after[ORDINARY_POD]}."
        ),
        footer=(
            "Busy QEMU VMs and a busy ordinary pod on one CPU, in pod cgroups of weight"
            f" {BASELINE}. Shares of what they had together."
            f" Nice {signed(result.nices[FAVOURED])} and {signed(result.nices[RESTRAINED])}."
        ),
        times=[shares.until for shares in course],
        bands=[
            Band(
                name=result.names[index],
                note=f"{before[result.names[index]]} → {after[result.names[index]]}",
                colour=_COLOURS[result.names[index].partition("/")[0]],
                shares=[shares.each[index] for shares in course],
            )
            for index in order
        ],
        phases=[
            replace(phase, shares=[phase.shares[index] for index in order]) for phase in phases
        ],
    )
