"""The state machine as resilience4j documents it, case by case."""

from typing import Any

import pytest

from headrace.handlers.breaker import (
    Breaker,
    BreakerRegistry,
    BreakerState,
    BreakerStatus,
    CallOutcome,
    NoSlot,
    NotBefore,
    Permit,
    Transition,
)
from headrace.topics.errors import DefinitionError, Fatal

OK, FAILED, IGNORED, CANCELLED = CallOutcome.SUCCEEDED, CallOutcome.FAILED, CallOutcome.IGNORED, CallOutcome.CANCELLED
CLOSED, OPEN, HALF_OPEN = BreakerStatus.CLOSED, BreakerStatus.OPEN, BreakerStatus.HALF_OPEN


def state(**settings: Any) -> BreakerState:
    return BreakerState(Breaker("b", **({"window": 4, "minimum_calls": 4, "probes": 2, "open_for": "10s"} | settings)))


def permit(breaker: BreakerState, now_ms: int = 0) -> Permit:
    got = breaker.try_acquire(now_ms)
    assert isinstance(got, Permit)
    return got


def call(breaker: BreakerState, outcome: CallOutcome, now_ms: int = 0, duration_ms: float = 1) -> Transition | None:
    return breaker.record(now_ms, permit(breaker, now_ms), outcome, duration_ms)


def opened(**settings: Any) -> BreakerState:
    breaker = state(**settings)
    while breaker.status is CLOSED:
        call(breaker, FAILED)
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "settings", "opens_at_call"),
    [
        ("FFFF", {}, 4),  # not before minimum_calls
        ("SSFF", {}, 4),  # equal to the threshold is enough
        ("SSSF", {}, None),
        ("SSSFF", {}, 5),  # the window slides: S S F F
        ("FSSSFSSS", {}, None),  # what slid out is forgotten
        ("FFFFF", {"minimum_calls": 100}, 4),  # minimum_calls is at most the window
        ("FF", {"minimum_calls": 2}, 2),
        ("SF", {"minimum_calls": 2}, 2),
        ("SSF", {"minimum_calls": 2}, None),
        ("FFIIIICCCC", {}, None),  # ignored and cancelled do not count
        ("FFIICCFF", {}, 8),
        ("SSSF", {"failure_rate": 0.25}, 4),
        ("FFFS", {"failure_rate": 1.0}, None),
        ("FFFF", {"failure_rate": 1.0}, 4),
        ("sSSs", {"slow_call_rate": 0.5}, 4),  # slow successes
        ("fSSs", {"slow_call_rate": 0.5, "failure_rate": 1.0}, 4),  # a slow failure is slow too
        ("ssss", {}, 4),  # default: all slow
        ("sssS", {}, None),
    ],
)
def test_a_closed_breaker_opens_when_a_rate_of_its_window_is_reached(
    outcomes: str, settings: dict[str, Any], opens_at_call: int | None
) -> None:
    breaker = state(slow_call="100ms", **settings)
    kinds = {"S": OK, "s": OK, "F": FAILED, "f": FAILED, "I": IGNORED, "C": CANCELLED}
    for number, letter in enumerate(outcomes, 1):
        moved = call(breaker, kinds[letter], number, 101 if letter.islower() else 100)
        if number == opens_at_call:
            assert moved == Transition("b", number, CLOSED, OPEN)
            return
        assert moved is None
        assert breaker.status is CLOSED
    assert opens_at_call is None


def test_an_open_breaker_says_when_to_ask_again() -> None:
    breaker = state()
    for _ in range(4):
        call(breaker, FAILED, now_ms=500)
    assert breaker.try_acquire(500) == NotBefore(10_500)
    assert breaker.try_acquire(10_499) == NotBefore(10_500)
    assert breaker.refusal(10_500) is None
    assert breaker.status is OPEN  # asking changes nothing
    got = permit(breaker, 10_500)
    assert got.transition == Transition("b", 10_500, OPEN, HALF_OPEN)


def test_half_open_lets_exactly_its_probes_through() -> None:
    breaker = opened(probes=3)
    probes = [permit(breaker, 10_000) for _ in range(3)]
    assert [probe.transition is not None for probe in probes] == [True, False, False]
    assert breaker.try_acquire(10_000) == NoSlot()
    breaker.record(10_000, probes[0], OK, 1)
    assert breaker.try_acquire(99_000) == NoSlot()  # an ended probe is used up
    assert breaker.status is HALF_OPEN


@pytest.mark.parametrize(
    ("outcomes", "after"),
    [
        ("SSSS", CLOSED),
        ("SSSF", CLOSED),
        ("SSFF", OPEN),
        ("FFFF", OPEN),
        ("sSSS", CLOSED),
        ("ssss", OPEN),
        ("FFSS", OPEN),
    ],
)
def test_the_decision_is_over_all_probes(outcomes: str, after: BreakerStatus) -> None:
    breaker = opened(probes=4, slow_call="100ms", minimum_calls=1)
    probes = [permit(breaker, 10_000) for _ in outcomes]
    for index, (letter, probe) in enumerate(zip(outcomes, probes, strict=True)):
        assert breaker.status is HALF_OPEN
        moved = breaker.record(11_000, probe, FAILED if letter == "F" else OK, 500 if letter.islower() else 1)
        assert (moved is not None) == (index == 3)
    assert breaker.status is after


def test_an_ignored_or_cancelled_probe_gives_its_permit_back() -> None:
    breaker = opened(probes=2)
    first, second = permit(breaker, 10_000), permit(breaker, 10_000)
    assert breaker.try_acquire(10_000) == NoSlot()
    assert breaker.record(10_000, first, CANCELLED, 1) is None
    third = permit(breaker, 10_000)
    assert breaker.record(10_000, second, IGNORED, 1) is None
    fourth = permit(breaker, 10_000)
    assert breaker.record(10_000, third, OK, 1) is None
    assert breaker.record(10_000, fourth, OK, 1) == Transition("b", 10_000, HALF_OPEN, CLOSED)


def test_it_reopens_for_the_whole_time_and_closes_with_an_empty_window() -> None:
    breaker = opened(probes=1)
    assert call(breaker, FAILED, 10_000) == Transition("b", 10_000, HALF_OPEN, OPEN)
    assert breaker.try_acquire(19_999) == NotBefore(20_000)
    assert call(breaker, OK, 20_000) == Transition("b", 20_000, HALF_OPEN, CLOSED)
    assert breaker.statistics().calls == 0
    for _ in range(3):
        assert call(breaker, FAILED, 20_001) is None
    assert call(breaker, FAILED, 20_001) is not None


def test_the_end_of_a_call_from_an_earlier_state_changes_nothing() -> None:
    breaker = state(probes=1)
    late = [permit(breaker) for _ in range(3)]
    for _ in range(4):
        call(breaker, FAILED)
    assert breaker.record(1, late[0], OK, 1) is None
    assert breaker.status is OPEN
    probe = permit(breaker, 10_000)
    assert breaker.record(10_000, late[1], OK, 1) is None
    assert breaker.status is HALF_OPEN
    assert breaker.record(10_000, probe, OK, 1) is not None
    assert breaker.record(10_000, late[2], FAILED, 1) is None
    assert breaker.statistics().calls == 0


def test_a_time_window_forgets_by_the_second() -> None:
    breaker = state(window="3s", minimum_calls=3)
    call(breaker, FAILED, 1_999)
    call(breaker, FAILED, 2_000)
    assert breaker.statistics().calls == 2
    call(breaker, OK, 4_000)  # second 1 is out of seconds 2, 3, 4
    assert (breaker.statistics().calls, breaker.statistics().failed) == (2, 1)
    call(breaker, OK, 4_999)
    assert breaker.status is CLOSED
    assert breaker.statistics().calls == 3
    call(breaker, FAILED, 60_000)
    assert (breaker.statistics().calls, breaker.statistics().failed) == (1, 1)


def test_a_time_window_needs_its_minimum_within_it() -> None:
    breaker = state(window="2s", minimum_calls=3)
    for now_ms in (0, 1_000, 2_000, 3_000, 4_000):
        assert call(breaker, FAILED, now_ms) is None
    assert call(breaker, FAILED, 4_999) is not None


def test_statistics_show_the_window_and_the_probes() -> None:
    breaker = opened()
    assert (breaker.statistics().status, breaker.statistics().failed) == (OPEN, 4)
    permit(breaker, 10_000)
    shown = breaker.statistics()
    assert (shown.status, shown.probes_out, shown.calls, shown.since_ms) == (HALF_OPEN, 1, 0, 10_000)


def test_a_probe_ends_once() -> None:
    breaker = opened()
    probe = permit(breaker, 10_000)
    breaker.record(10_000, probe, IGNORED, 1)
    with pytest.raises(Fatal):
        breaker.record(10_000, probe, IGNORED, 1)


def test_a_name_is_one_breaker() -> None:
    registry = BreakerRegistry()
    shared = registry.state(Breaker("b", window=10))
    assert registry.state(Breaker("b", window=10)) is shared
    with pytest.raises(DefinitionError, match=r"window_calls=10.*window_calls=11"):
        registry.state(Breaker("b", window=11))
    assert [each.name for each in registry.statistics()] == ["b"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a b"},
        {"window": 0},
        {"window": True},
        {"window": "1500ms"},
        {"window": "2d"},
        {"window": 1.5},
        {"minimum_calls": 0},
        {"failure_rate": 0},
        {"failure_rate": 1.1},
        {"failure_rate": 50},
        {"failure_rate": float("nan")},
        {"failure_rate": "0.5"},
        {"slow_call_rate": 0.0},
        {"slow_call": 2},
        {"open_for": "0s"},
        {"probes": 0},
        {"ignore": ValueError},
        {"on_open": "wait"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"name": "b"}
    with pytest.raises(DefinitionError, match="Breaker") as refused:
        Breaker(**(settings | wrong))
    assert refused.value.code in ("HR2030", "HR2036")
