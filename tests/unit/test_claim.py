"""The claim guard: VMs trade CPU among themselves, and take none from the pods beside them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peacemaker.claim import Claimant, guard, is_off, wanted_weight
from peacemaker.nice import CPU_SHARES, CPU_WEIGHT, NICE_MAX, NICE_MIN, WeightRange, k

VERSIONS = st.sampled_from([CPU_WEIGHT, CPU_SHARES])
NICES = st.integers(NICE_MIN, NICE_MAX)
PERCENTS = st.sampled_from([100, 150, 300, 10_000])


@st.composite
def claimants(draw: st.DrawFn, frozen: bool = True, least: int = 1) -> list[Claimant]:
    count = draw(st.integers(least, 12))
    return [
        Claimant(
            uid=f"vm-{number}",
            baseline=draw(st.integers(1, 10_000)),
            nice=draw(NICES),
            baseline_nice=draw(st.sampled_from([0, 0, 0, 5, -5])),
            frozen_weight=draw(st.none() | st.integers(1, 10_000)) if frozen else None,
        )
        for number in range(count)
    ]


def claim(members: list[Claimant], percent: int = 100) -> float:
    return percent / 100 * sum(member.baseline for member in members)


def frozen_weights(members: list[Claimant]) -> int:
    return sum(member.frozen_weight or 0 for member in members)


@given(claimants(), VERSIONS, PERCENTS)
def test_the_common_claim_never_grows_beyond_what_is_allowed(
    members: list[Claimant], limits: WeightRange, percent: int
) -> None:
    shares = guard(members, limits, percent)
    written = frozen_weights(members) + sum(share.weight for share in shares.values())
    rounding = len(shares) / 2
    lifted = sum(limits.minimum for share in shares.values() if share.floored)
    allowed = max(claim(members, percent), frozen_weights(members))
    assert written <= allowed + rounding + lifted


@given(claimants(), VERSIONS, PERCENTS)
def test_without_rounding_the_claim_is_used_up_or_everybody_has_what_was_wanted(
    members: list[Claimant], limits: WeightRange, percent: int
) -> None:
    shares = guard(members, limits, percent)
    left = max(0.0, claim(members, percent) - frozen_weights(members))
    asked = {m.uid: wanted_weight(m) for m in members if m.frozen_weight is None}
    granted = {uid: share.wanted for uid, share in shares.items()}
    if sum(asked.values()) <= left:
        assert granted == asked
    else:
        assert sum(granted.values()) == pytest.approx(left)


@given(claimants(least=2), VERSIONS, PERCENTS)
def test_the_guard_scales_all_by_one_factor(
    members: list[Claimant], limits: WeightRange, percent: int
) -> None:
    shares = guard(members, limits, percent)
    factors = [shares[m.uid].wanted / wanted_weight(m) for m in members if m.frozen_weight is None]
    assert factors == pytest.approx(factors[:1] * len(factors))
    assert all(factor <= 1 for factor in factors)


@given(claimants(), VERSIONS)
def test_frozen_vms_get_no_weight_written(members: list[Claimant], limits: WeightRange) -> None:
    free = {member.uid for member in members if member.frozen_weight is None}
    assert guard(members, limits).keys() == free


@pytest.mark.parametrize("limits", [CPU_WEIGHT, CPU_SHARES])
@pytest.mark.parametrize("nice", range(NICE_MIN, 1))
def test_a_lone_vm_cannot_gain(nice: int, limits: WeightRange) -> None:
    share = guard([Claimant("a", 100, nice)], limits)["a"]
    assert (share.weight, share.effective_nice, share.floored) == (100, 0, False)


@given(claimants(frozen=False, least=2), VERSIONS, st.data())
def test_lowering_a_vm_leaves_the_others_alone_while_the_guard_rests(
    members: list[Claimant], limits: WeightRange, data: st.DataObject
) -> None:
    calm = [replace(m, nice=max(m.nice, m.baseline_nice)) for m in members]
    lowered = [
        replace(calm[0], nice=data.draw(st.integers(calm[0].nice, NICE_MAX))),
        *calm[1:],
    ]
    before, after = guard(calm, limits), guard(lowered, limits)
    assert all(before[m.uid] == after[m.uid] for m in calm[1:])
    assert after[calm[0].uid].weight <= before[calm[0].uid].weight


@given(claimants(frozen=False, least=2), VERSIONS, PERCENTS)
def test_a_higher_nice_never_gets_more_and_never_takes_from_the_others(
    members: list[Claimant], limits: WeightRange, percent: int
) -> None:
    nicer = [replace(members[0], nice=min(NICE_MAX, members[0].nice + 1)), *members[1:]]
    before, after = guard(members, limits, percent), guard(nicer, limits, percent)
    tiny = 1e-6  # of the sums' rounding
    assert after["vm-0"].wanted <= before["vm-0"].wanted * (1 + tiny)
    assert all(after[m.uid].wanted >= before[m.uid].wanted * (1 - tiny) for m in members[1:])


@given(st.lists(NICES, min_size=2, max_size=12, unique=True), st.integers(1, 10_000), VERSIONS)
def test_among_equals_a_lower_nice_has_at_least_the_weight(
    nices: list[int], baseline: int, limits: WeightRange
) -> None:
    shares = guard([Claimant(str(nice), baseline, nice) for nice in nices], limits)
    weights = [shares[str(nice)].weight for nice in sorted(nices)]
    assert weights == sorted(weights, reverse=True)


@pytest.mark.parametrize("limits", [CPU_WEIGHT, CPU_SHARES])
@pytest.mark.parametrize("nice", range(NICE_MIN, NICE_MAX + 1))
def test_unguarded_the_effective_nice_is_the_nice(nice: int, limits: WeightRange) -> None:
    # The largest baseline whose weight at nice -20 fits, and one whose weight at +19 is no 1 or 2.
    baseline = min(10_000, int(limits.maximum * k(0) / k(nice)))
    big = [Claimant("a", baseline, nice), Claimant("b", limits.maximum, 0)]
    assert guard(big, limits, 10_000)["a"].effective_nice == nice


@pytest.mark.parametrize(
    ("members", "percent", "expected"),
    [
        # (uid, baseline, nice, frozen): (weight, effective nice)
        ([("a", 1024, 0, None)], 100, {"a": (1024, 0)}),
        ([("a", 1024, 15, None)], 100, {"a": (36, 15)}),
        ([("a", 1024, -5, None), ("b", 1024, 5, None)], 100, {"a": (1849, -3), "b": (199, 7)}),
        ([("a", 1024, 0, None), ("b", 1024, 5, None)], 100, {"a": (1024, 0), "b": (335, 5)}),
        ([("a", 1024, -1, None)], 125, {"a": (1277, -1)}),
        ([("a", 1024, -5, None)], 200, {"a": (2048, -3)}),
        # The frozen VM's baseline counts in the claim, and its weight is taken.
        ([("a", 1024, -15, None), ("f", 1024, 0, 36)], 100, {"a": (2012, -3)}),
        ([("a", 1024, 0, None), ("f", 1024, 0, 1536)], 100, {"a": (512, 3)}),
        ([("a", 1024, 0, None), ("f", 1024, -15, 5000)], 100, {"a": (2, 19)}),
        ([], 100, {}),
    ],
)
def test_what_the_guard_grants(
    members: list[tuple[str, int, int, int | None]],
    percent: int,
    expected: dict[str, tuple[int, int]],
) -> None:
    shares = guard(
        [Claimant(uid, base, nice, frozen_weight=frozen) for uid, base, nice, frozen in members],
        CPU_SHARES,
        percent,
    )
    assert {uid: (s.weight, s.effective_nice) for uid, s in shares.items()} == expected


@pytest.mark.parametrize(
    ("limits", "baseline", "nice", "weight", "floored"),
    [
        *((CPU_WEIGHT, 4, 0, 4, False), (CPU_WEIGHT, 4, 15, 1, True)),
        *((CPU_WEIGHT, 4, 6, 1, False), (CPU_WEIGHT, 4, 7, 1, True)),
        *((CPU_SHARES, 102, 15, 4, False), (CPU_SHARES, 102, 19, 2, True)),
        *((CPU_SHARES, 2, 0, 2, False), (CPU_SHARES, 2, 1, 2, True)),
    ],
)
def test_a_weight_below_the_kernels_minimum_is_floored_and_says_so(
    limits: WeightRange, baseline: int, nice: int, weight: int, floored: bool
) -> None:
    # 4 × 272/1024 = 1.06, 4 × 215/1024 = 0.84; 102 × 15/1024 = 1.5, 2 × 820/1024 = 1.6
    share = guard([Claimant("a", baseline, nice)], limits)["a"]
    assert (share.weight, share.floored) == (weight, floored)
    assert share.wanted == pytest.approx(baseline * k(nice) / k(0))


def test_the_baseline_nice_is_where_the_baseline_weight_stands() -> None:
    same = Claimant("a", 1000, nice=5, baseline_nice=5)
    assert guard([same], CPU_WEIGHT)["a"].weight == 1000
    assert guard([same], CPU_WEIGHT)["a"].effective_nice == 5


@pytest.mark.parametrize(
    ("found", "weight", "off"),
    [
        *((1000, 1000, False), (1020, 1000, False), (980, 1000, False), (1021, 1000, True)),
        *((979, 1000, True), (4, 5, True), (1, 1, False), (0, 1, True), (0, 10_000, True)),
    ],
)
def test_a_weight_within_two_percent_is_left(found: int, weight: int, off: bool) -> None:
    assert is_off(found, weight) is off
