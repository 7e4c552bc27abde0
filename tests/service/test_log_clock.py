"""The log's clock: the local one plus the skew that append times show."""

from time import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.service.log_clock import LogClock

moments = st.integers(1_600_000_000_000, 1_900_000_000_000)


def test_a_stamp_between_call_and_acknowledgement_moves_nothing() -> None:
    clock = LogClock()
    clock.seen(1_000_050, 1_000_000.0, 1_000_100.0)
    assert clock.skew_ms == 0


def test_a_stamp_of_a_broker_that_is_ahead_or_behind_moves_the_skew() -> None:
    clock = LogClock()
    clock.seen(1_005_050, 1_000_000.0, 1_000_100.0)
    assert clock.skew_ms == 5_000
    clock.seen(1_006_000, 1_001_000.0, 1_001_010.0)  # as we now believe it is
    assert clock.skew_ms == 5_000
    clock.seen(999_050, 1_002_000.0, 1_002_100.0)
    assert clock.skew_ms == -3_000


def test_an_append_without_a_time_tells_nothing() -> None:
    clock = LogClock()
    clock.seen(-1, 1_000_000.0, 1_000_100.0)
    clock.seen(0, 1_000_000.0, 1_000_100.0)
    assert clock.skew_ms == 0


@given(moments, st.integers(-86_400_000, 86_400_000), st.integers(0, 5_000), st.floats(0, 1))
def test_the_skew_is_as_good_as_the_acknowledgement_was_quick(
    called_at: int, true_skew: int, took_ms: int, share: float
) -> None:
    clock = LogClock()
    clock.seen(round(called_at + took_ms * share) + true_skew, called_at, called_at + took_ms)
    assert abs(clock.skew_ms - true_skew) <= took_ms / 2 + 2 or (clock.skew_ms == 0 and abs(true_skew) <= took_ms + 2)


@pytest.mark.parametrize("jump_s", [-86_400, -3_600, 3_600, 86_400])
def test_a_wall_clock_that_is_set_moves_nothing(monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    clock = LogClock()
    monkeypatch.setattr("headrace.topics.local_clock.time", lambda: time() + jump_s)
    assert abs(clock.now_ms() - time() * 1000) < 1_000


def test_who_set_alarms_by_it_is_told_of_a_step() -> None:
    clock, told = LogClock(), list[int]()
    clock.moved = lambda: told.append(clock.skew_ms)
    clock.seen(1_000_050, 1_000_000.0, 1_000_100.0)
    assert not told
    clock.seen(1_005_050, 1_000_000.0, 1_000_100.0)
    assert told == [5_000]
