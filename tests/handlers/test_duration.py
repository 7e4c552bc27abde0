from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from headrace.handlers.duration import MILLISECONDS_MAX, milliseconds
from headrace.topics.errors import DefinitionError


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("250ms", 250),
        ("2s", 2_000),
        ("1h30m", 5_400_000),
        ("1d", 86_400_000),
        ("1w2d3h4m5s6ms", 788_645_006),
        ("1.5s", 1_500),
        ("0.25h", 900_000),
        (" 2s ", 2_000),
        ("1m", 60_000),
        ("36500d", MILLISECONDS_MAX),
        (timedelta(seconds=2, milliseconds=1), 2_001),
    ],
)
def test_durations_become_whole_milliseconds(written: str | timedelta, expected: int) -> None:
    assert milliseconds(written, name="timeout") == expected


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("2", "no unit"),
        ("2.5", "no unit"),
        (2, "not text"),
        (2.0, "not text"),
        (True, "not text"),
        (None, "not text"),
        ("", "empty"),
        ("  ", "empty"),
        ("-2s", "number with a unit"),
        ("2 s", "number with a unit"),
        ("2S", "number with a unit"),
        ("٢s", "number with a unit"),
        ("1e3s", "number with a unit"),
        ("30m1h", "long to short"),
        ("1s1s", "each once"),
        ("0.5ms", "finer"),
        ("1.0005s", "finer"),
        (timedelta(microseconds=1), "finer"),
        (timedelta(seconds=-1), "negative"),
        ("0s", "longer than zero"),
        (timedelta(0), "longer than zero"),
        ("36501d", "hundred years"),
        ("9" * 60 + "s", "hundred years"),
        ("9" * 100_000 + "s", "longer than 64"),
        (timedelta.max, "finer"),
        (timedelta(days=999_999_999), "hundred years"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_field_and_the_reason(written: Any, why: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        milliseconds(written, name="Retry.cap")
    assert refused.value.code == "HR2030"
    assert "Retry.cap" in refused.value.message
    assert why in refused.value.message
    assert len(refused.value.message) < 400


def test_zero_is_a_duration_only_where_it_means_something() -> None:
    assert milliseconds("0ms", name="Retry.delay", zero=True) == 0


@given(integers(min_value=1, max_value=MILLISECONDS_MAX))
def test_milliseconds_written_out_are_read_back(total_ms: int) -> None:
    assert milliseconds(f"{total_ms}ms", name="x") == total_ms
    assert milliseconds(timedelta(milliseconds=total_ms), name="x") == total_ms
    seconds, rest_ms = divmod(total_ms, 1000)
    assert milliseconds(f"{seconds}s{rest_ms}ms", name="x") == total_ms
    assert milliseconds(f"{seconds}.{rest_ms:03}s", name="x") == total_ms
