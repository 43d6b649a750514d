"""Durations are whole hours, minutes and seconds in this order, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peacemaker.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("15s", 15.0),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1h0m1s", 3601.0),
        ("24h", 86400.0),
    ],
)
def test_reads_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "15", "s", "5 parsecs", "1s1m", "1m1h", "1s1s", "500ms", "1.5h", "-1s", "+1s", "1d"),
        *(" 1s", "1s ", "1s\n", "1 s", "1S", "١s", "9" * 10 + "s", "9" * 100_000 + "s", "1h\x00"),
    ],
)
def test_refuses_everything_else(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_what_is_written_is_read_back(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
