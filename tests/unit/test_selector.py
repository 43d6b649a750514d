"""Selectors match exactly as Kubernetes' LabelSelector does."""

from collections.abc import Mapping

import pytest

from peacemaker.selector import LabelSelector, Operator, Requirement

EMPTY: Mapping[str, str] = {}
GOLD = {"tier": "gold"}
BLANK = {"tier": ""}


def _one(operator: Operator, *values: str) -> LabelSelector:
    return LabelSelector({}, (Requirement("tier", operator, frozenset(values)),))


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        (LabelSelector(), EMPTY, True),
        (LabelSelector(), GOLD, True),
        (LabelSelector(GOLD), GOLD, True),
        (LabelSelector(GOLD), GOLD | {"os": "linux"}, True),
        (LabelSelector(GOLD), {"tier": "silver"}, False),
        (LabelSelector(GOLD), EMPTY, False),
        (LabelSelector(BLANK), EMPTY, False),
        (LabelSelector(BLANK), BLANK, True),
        (LabelSelector(GOLD | {"os": "linux"}), GOLD, False),
        (_one(Operator.IN, "gold", "silver"), GOLD, True),
        (_one(Operator.IN, "silver"), GOLD, False),
        (_one(Operator.IN, "gold"), EMPTY, False),
        (_one(Operator.IN, ""), EMPTY, False),
        (_one(Operator.IN, ""), BLANK, True),
        (_one(Operator.NOT_IN, "gold"), GOLD, False),
        (_one(Operator.NOT_IN, "silver"), GOLD, True),
        (_one(Operator.NOT_IN, "gold"), EMPTY, True),
        (_one(Operator.NOT_IN, ""), EMPTY, True),
        (_one(Operator.EXISTS), BLANK, True),
        (_one(Operator.EXISTS), EMPTY, False),
        (_one(Operator.DOES_NOT_EXIST), EMPTY, True),
        (_one(Operator.DOES_NOT_EXIST), BLANK, False),
        (
            LabelSelector(GOLD, (Requirement("os", Operator.EXISTS),)),
            GOLD,
            False,
        ),
        (
            LabelSelector(GOLD, (Requirement("os", Operator.EXISTS),)),
            GOLD | {"os": "linux"},
            True,
        ),
    ],
)
def test_all_requirements_must_hold(
    selector: LabelSelector, labels: Mapping[str, str], matches: bool
) -> None:
    assert selector.matches(labels) is matches
