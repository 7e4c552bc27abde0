from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.handlers.rate_limit import RateLimit, RateLimitRegistry, RateLimitState, RateLimitStatistics
from headrace.topics.errors import DefinitionError


def test_a_burst_begins_at_once_and_then_one_token_comes_after_the_other() -> None:
    state = RateLimitState(RateLimit("l", limit=3, per="1s"))
    assert [state.try_acquire(5_000) for _ in range(4)] == [True, True, True, False]
    assert state.next_ms() == 5_334  # a third of a second, rounded up: never early
    assert not state.try_acquire(5_333)
    assert state.try_acquire(5_334)
    assert state.next_ms() == 5_667  # and the rest is not lost
    assert state.statistics(5_667) == RateLimitStatistics(name="l", limit=3, per_ms=1000, burst=3, tokens=1, begun=4)


def test_a_burst_of_one_spaces_attempts_evenly() -> None:
    state = RateLimitState(RateLimit("l", limit=10, per="1s", burst=1))
    assert [now_ms for now_ms in range(1_000) if state.try_acquire(now_ms)] == list(range(0, 1_000, 100))


def test_a_long_rest_fills_the_bucket_and_no_more() -> None:
    state = RateLimitState(RateLimit("l", limit=2, per="1h", burst=3))
    for at_ms in (0, 10**12):
        assert [state.try_acquire(at_ms) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_steps_back_brings_no_tokens() -> None:
    state = RateLimitState(RateLimit("l", limit=1, per="1s"))
    assert state.try_acquire(10_000)
    assert not state.try_acquire(0)
    assert state.statistics(0).tokens == 0
    assert not state.try_acquire(10_999)
    assert state.try_acquire(11_000)


@given(
    st.integers(1, 50),
    st.integers(1, 5_000),
    st.none() | st.integers(1, 60),
    st.lists(st.integers(0, 2_000), max_size=200),
)
def test_never_more_than_it_says_and_never_less_than_could_be(
    limit: int, per_ms: int, burst: int | None, pauses: list[int]
) -> None:
    definition = RateLimit("l", limit=limit, per=f"{per_ms}ms", burst=burst)
    state = RateLimitState(definition)
    now_ms, begun = 0, list[int]()
    for pause in pauses:
        now_ms += pause
        told_ms = state.next_ms()
        began = state.try_acquire(now_ms)
        assert began == (now_ms >= told_ms)
        if began:
            begun.append(now_ms)
            for count, since_ms in enumerate(reversed(begun), start=1):
                assert (count - definition.burst) * per_ms <= limit * (now_ms - since_ms)
        else:  # one more would have been one too many for some time until now
            assert any(
                (count - definition.burst) * per_ms > limit * (now_ms - since_ms)
                for count, since_ms in enumerate(reversed(begun), start=2)
            )


def test_a_name_is_one_rate_limit() -> None:
    registry = RateLimitRegistry()
    state = registry.state(RateLimit("l", limit=1))
    assert registry.state(RateLimit("l", limit=1, per="1000ms", burst=1)) is state
    with pytest.raises(DefinitionError, match=r"limit=1.*limit=2") as refused:
        registry.state(RateLimit("l", limit=2))
    assert refused.value.code == "HR2037"
    assert [each.name for each in registry.statistics(0)] == ["l"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": "a b"}, "a b"),
        ({"limit": 0}, "limit=0"),
        ({"limit": True}, "limit=True"),
        ({"limit": 1.5}, "limit=1.5"),
        ({"limit": 1_000_001}, "1000000"),
        ({"burst": 0}, "burst=0"),
        ({"per": 1}, "RateLimit.per=1"),
        ({"per": "0s"}, "longer than zero"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        RateLimit(**{"name": "l", **settings})
    assert named in str(refused.value)
