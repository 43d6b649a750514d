"""The demonstration from its first phase to its last, with the processes that it is given."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from demo.cast import BASELINE, FAVOURED, RESTRAINED, Agent, Member
from demo.interrupts import Interrupts
from demo.meter import Meter, Sample, Shares
from demo.result import Result
from demo.screen import Line, Screen, View, signed
from lab.chart import Phase
from peacemaker.nice import effective_nice
from peacemaker.policy import PeacePolicy

PHASES = ("equal weights", "nice alone", "peacemaker", "restored")

_TICK = 0.5
_ANSWER_TIMEOUT = 30.0
_SETTLE_TIMEOUT = 90.0
"""For the load to rise, and then for the agent to reach the bounds of its policy."""
_RESTORE_TIMEOUT = 10.0


@dataclass(slots=True)
class Story:
    """Tells it on a screen, and keeps what it measured: `seconds` long in each phase."""

    members: Sequence[Member]
    policy: PeacePolicy
    seconds: float
    screen: Screen
    interrupts: Interrupts
    meter: Meter = field(init=False)
    phases: list[Phase] = field(default_factory=list)
    _agent: Agent | None = None

    def __post_init__(self) -> None:
        self.meter = Meter([member.process for member in self.members])

    def play(self, start_agent: Callable[[], Agent]) -> Result:
        """All four phases. RuntimeError or TimeoutError says what went wrong."""
        goal = {FAVOURED: self.policy.bounds.min, RESTRAINED: self.policy.bounds.max}
        equal = self._equal()
        nice_alone = self._nice_alone(goal)
        agent = self._agent = start_agent()
        peace = self._peacemaker(agent, goal)
        result = Result(
            names=[member.name for member in self.members],
            equal=equal,
            nice_alone=nice_alone,
            peace=peace,
            weights={member.name: member.own.weight() for member in self.members},
            nices=agent.nices(),
        )
        self._restored(agent)
        return result

    def _equal(self) -> Shares:
        start = self.meter.latest
        self._hold(f"every pod has weight {BASELINE} and nobody has touched anything", self.seconds)
        return self._end_phase(start, start)

    def _nice_alone(self, nices: Mapping[str, int]) -> Shares:
        self._set_nices(nices)
        start = self.meter.take()
        told = " and ".join(f"{signed(nice)} for {name}" for name, nice in nices.items())
        self._hold(f"nice {told}, on every thread of QEMU", self.seconds)
        shares = self._end_phase(start, start)
        self._set_nices(dict.fromkeys(nices, 0))
        return shares

    def _peacemaker(self, agent: Agent, goal: Mapping[str, int]) -> Shares:
        """Until the policy's bounds are reached, then as long again as the phases before."""
        start = self.meter.latest
        self._watch(
            f"the agent acts when {self.policy.rules[0].when.text}",
            lambda: goal.items() <= agent.nices().items(),
            _SETTLE_TIMEOUT,
        )
        settled = self.meter.take()
        self._hold("the policy's bounds are reached", self.seconds)
        return self._end_phase(start, settled)

    def _restored(self, agent: Agent) -> None:
        agent.rest()
        start = self.meter.latest
        caption = "the stop file is there: the agent puts everything back and rests"
        self._watch(caption, self.is_restored, _RESTORE_TIMEOUT)
        settled = self.meter.take()
        self._hold(caption, max(self.seconds / 2, 3 * _TICK))
        self._end_phase(start, settled)
        agent.end()

    def is_restored(self) -> bool:
        """Whether every weight and every nice is what it was before the demonstration."""
        return all(member.is_untouched() for member in self.members)

    def _set_nices(self, nices: Mapping[str, int]) -> None:
        for member in self.members:
            if member.name in nices:
                member.set_nice(nices[member.name])

    def _end_phase(self, start: Sample, measured: Sample) -> Shares:
        shares = self.meter.since(measured)
        name = PHASES[len(self.phases)]
        self.phases.append(
            Phase(
                name, start.at, shares.until, measured.at, shares.each, stands_out=name == PHASES[2]
            )
        )
        return shares

    def _hold(self, caption: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._watch(caption, lambda: time.monotonic() >= deadline, seconds + _ANSWER_TIMEOUT)

    def _watch(self, caption: str, done: Callable[[], bool], timeout: float) -> None:
        """Show what happens until it is done. TimeoutError with the caption if it never is."""
        deadline = time.monotonic() + timeout
        while True:
            tick = time.monotonic() + _TICK
            self.interrupts.sleep(tick - time.monotonic())
            self.meter.take()
            self.screen.show(self._view(caption))
            if done():
                return
            if time.monotonic() > deadline:
                load = os.getloadavg()[0]
                raise TimeoutError(f"waited {timeout:g} s in vain: {caption} (load {load:.2f})")

    def _view(self, caption: str) -> View:
        shares = self.meter.now()
        return View(
            at=shares.until,
            phases=PHASES,
            phase=len(self.phases),
            caption=caption,
            load=os.getloadavg()[0],
            lines=tuple(self._lines(shares)),
        )

    def _lines(self, shares: Shares) -> Iterator[Line]:
        """What the agent says of the VMs once it runs, what the kernel says before."""
        rows = self._agent.vms() if self._agent else {}
        for member, share, wait in zip(self.members, shares.each, shares.waits, strict=True):
            weight = member.own.weight()
            row = rows.get(member.name)
            yield Line(
                name=member.name,
                nice=row.nice if row else max(member.nices()),
                effective=effective_nice(weight, BASELINE),
                weight=weight,
                wait=wait,
                share=share,
                why=row.reason if row else "",
            )
