"""Nice and the kernel's weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peacemaker.nice import (
    CPU_SHARES,
    CPU_WEIGHT,
    NICE_MAX,
    NICE_MIN,
    WeightRange,
    effective_nice,
    k,
    priority,
)

EVERY_NICE = range(NICE_MIN, NICE_MAX + 1)


@pytest.mark.parametrize(
    ("nice", "weight"),
    [(-20, 88761), (-15, 29154), (-10, 9548), (-1, 1277), (0, 1024), (1, 820), (15, 36), (19, 15)],
)
def test_k_is_the_kernels_table(nice: int, weight: int) -> None:
    assert k(nice) == weight


def test_each_step_of_nice_is_worth_about_a_quarter() -> None:
    ratios = [k(nice) / k(nice + 1) for nice in range(NICE_MIN, NICE_MAX)]
    assert all(1.15 < ratio < 1.32 for ratio in ratios)


@pytest.mark.parametrize("nice", [-21, 20, 100])
def test_a_nice_that_the_kernel_does_not_know_has_no_weight(nice: int) -> None:
    with pytest.raises(ValueError, match=f"nice {nice} is outside -20..19"):
        k(nice)


@pytest.mark.parametrize(("nice", "expected"), [(-20, 40), (0, 20), (19, 1)])
def test_priority_is_the_kernels_own_and_higher_is_more(nice: int, expected: int) -> None:
    assert priority(nice) == expected


@pytest.mark.parametrize("baseline_nice", [-20, -5, 0, 7, 19])
@pytest.mark.parametrize("nice", EVERY_NICE)
def test_effective_nice_of_the_weight_that_a_nice_means_is_that_nice(
    nice: int, baseline_nice: int
) -> None:
    baseline = 1_000_000
    weight = baseline * k(nice) / k(baseline_nice)
    assert effective_nice(weight, baseline, baseline_nice) == nice


@pytest.mark.parametrize(
    ("weight", "expected"),
    [(1, 19), (10**9, -20), (999, 0), (1024, 0), (906, 1), (1160, -1), (36, 15)],
)
def test_effective_nice_is_the_nearest_by_ratio_and_ends_where_nice_ends(
    weight: float, expected: int
) -> None:
    assert effective_nice(weight, 1024) == expected


@given(
    st.floats(1, 300_000),
    st.floats(1, 300_000),
    st.integers(1, 262_144),
    st.integers(NICE_MIN, NICE_MAX),
)
def test_more_weight_never_means_a_higher_effective_nice(
    one: float, other: float, baseline: int, baseline_nice: int
) -> None:
    less, more = sorted((one, other))
    assert effective_nice(less, baseline, baseline_nice) >= effective_nice(
        more, baseline, baseline_nice
    )


@pytest.mark.parametrize(
    ("limits", "weight", "expected"),
    [
        *((CPU_WEIGHT, 0, 1), (CPU_WEIGHT, 1, 1), (CPU_WEIGHT, 10_000, 10_000)),
        *((CPU_WEIGHT, 10_001, 10_000), (CPU_SHARES, 1, 2), (CPU_SHARES, 2, 2)),
        *((CPU_SHARES, 262_144, 262_144), (CPU_SHARES, 262_145, 262_144)),
    ],
)
def test_weights_stay_in_what_the_cgroup_version_accepts(
    limits: WeightRange, weight: int, expected: int
) -> None:
    assert limits.clamp(weight) == expected
