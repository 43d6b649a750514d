"""The paper's Figure 7, step by step: the shared policy is the figure, and behaves as it says."""

from pathlib import Path

import pytest

from peacemaker.engine import Decision, decide
from peacemaker.memory import Memory
from peacemaker.parse import parse_policies
from peacemaker.trace import Verdict
from tests.unit.builders import BETWEEN, HIGH, LOW, moves, snapshot, verdicts, vm

FILE = Path(__file__).parents[2] / "policies" / "seed-figure-7.yaml"
(FIGURE_7,) = parse_policies(FILE.read_bytes(), str(FILE))


def step(load15: float, **nices: int) -> Decision:
    """One pass at this load over VMs of these nices; equally old, so that names break ties."""
    vms = [vm(name, nice, changed_at=999.0) for name, nice in nices.items()]
    return decide(FIGURE_7, snapshot(vms, {"load15": load15}))


@pytest.mark.parametrize(
    ("load15", "nices", "moved"),
    [
        # Above 90 %: the VM of lowest priority (highest nice) yields one step.
        (0.91, {"a": 0, "b": 5, "c": -5}, {"b": (5, 6)}),
        (2.0, {"a": 0, "b": -1}, {"a": (0, 1)}),
        (0.95, {"a": 14, "b": 0}, {"a": (14, 15)}),
        # Below 10 %: the VM of highest priority (lowest nice) gains one step.
        (0.09, {"a": 0, "b": 5, "c": -5}, {"c": (-5, -6)}),
        (0.0, {"a": 0, "b": 1}, {"a": (0, -1)}),
        (0.05, {"a": -14, "b": 0}, {"a": (-14, -15)}),
        # In between, both ends included, nothing moves.
        (0.9, {"a": 0, "b": 5}, {}),
        (0.5, {"a": 0, "b": 5}, {}),
        (0.1, {"a": 0, "b": 5}, {}),
        # At the bound nothing moves, though another VM could: no fall-through.
        (0.95, {"a": 15, "b": 0, "c": -15}, {}),
        (0.05, {"a": -15, "b": 0, "c": 15}, {}),
        # Ties: equal priority, the first (older, then by name) is the one, at both ends.
        (0.95, {"b": 3, "a": 3}, {"a": (3, 4)}),
        (0.05, {"b": 3, "a": 3}, {"a": (3, 2)}),
        (0.95, {"b": 15, "a": 15}, {}),
        # One VM is both the lowest and the highest.
        (0.95, {"a": 0}, {"a": (0, 1)}),
        (0.05, {"a": 0}, {"a": (0, -1)}),
        (0.95, {}, {}),
    ],
)
def test_one_step(load15: float, nices: dict[str, int], moved: dict[str, tuple[int, int]]) -> None:
    assert moves(step(load15, **nices)) == moved


def test_the_bound_is_tested_after_the_pick() -> None:
    decision = step(0.95, a=15, b=14)
    assert verdicts(decision) == {"a": Verdict.BOUND, "b": Verdict.NOT_PICKED}


def test_older_vms_come_first_among_equals() -> None:
    vms = [vm("a", 3, started=9.0), vm("b", 3, started=1.0)]
    for node in (HIGH, LOW):
        assert moves(decide(FIGURE_7, snapshot(vms, node))).keys() == {"b"}


def test_without_the_load_nothing_moves_and_the_signal_is_named() -> None:
    decision = decide(FIGURE_7, snapshot([vm("a")], {"load1": 2.0}))
    assert not decision.changes
    assert decision.trace.missing == ("node.load15",)


def test_a_day_of_it() -> None:
    """Loaded until the lowest is at +15, calm, then idle until the highest is at -15."""
    nices = {"a": 0, "b": 0}
    memory = Memory()
    row = [HIGH] * 17 + [BETWEEN] * 3 + [LOW] * 17
    history = []
    for number, node in enumerate(row):
        now = 15.0 * number
        vms = [vm(name, nice, changed_at=now) for name, nice in nices.items()]
        decision = decide(FIGURE_7, snapshot(vms, node, now))
        memory = decision.memory
        nices |= {change.uid: change.new for change in decision.changes}
        history.append(dict(nices))
    assert memory.rules.keys() == {"restrain-the-lowest", "favour-the-highest"}
    assert [each["a"] for each in history[:17]] == [*range(1, 16), 15, 15]
    assert {each["b"] for each in history[:20]} == {0}
    assert {each["a"] for each in history[17:]} == {15}
    assert [each["b"] for each in history[20:]] == [*range(-1, -16, -1), -15, -15]
