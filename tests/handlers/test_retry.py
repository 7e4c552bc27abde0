import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.handlers.duration import MILLISECONDS_MAX
from headrace.handlers.retry import (
    GiveUp,
    GiveUpReason,
    Retry,
    RetryAfter,
    after_failure,
    fraction_of,
    is_retryable,
    least_wait_ms,
)
from headrace.topics.errors import DefinitionError, NonRetryable, Rejected, Retryable, Transient

ALMOST_ONE = 1 - 2**-53


def decide(
    retry: Retry, number: int, fraction: float = ALMOST_ONE, elapsed_ms: int = 0, **more: Any
) -> RetryAfter | GiveUp:
    more.setdefault("retryable", True)
    return after_failure(retry, attempt_number=number, fraction=fraction, elapsed_ms=elapsed_ms, **more)


@pytest.mark.parametrize(
    ("backoff", "ceilings"),
    [
        ("constant", [100, 100, 100, 100, 100, 100]),
        ("linear", [100, 200, 300, 400, 500, 500]),
        ("exponential", [100, 200, 400, 500, 500, 500]),
    ],
)
def test_the_wait_is_a_share_of_a_capped_ceiling(backoff: Any, ceilings: list[int]) -> None:
    retry = Retry(attempts=10, backoff=backoff, delay="100ms", cap="500ms")
    for number, ceiling_ms in enumerate(ceilings, 1):
        assert decide(retry, number, fraction=0.0) == RetryAfter(0)
        assert decide(retry, number, fraction=0.5) == RetryAfter(ceiling_ms // 2)
        assert decide(retry, number) == RetryAfter(ceiling_ms - 1)


def test_attempts_count_the_first() -> None:
    assert decide(Retry(attempts=1), 1) == GiveUp(GiveUpReason.ATTEMPTS)
    assert isinstance(decide(Retry(attempts=2), 1), RetryAfter)
    assert decide(Retry(attempts=2), 2) == GiveUp(GiveUpReason.ATTEMPTS)


def test_what_is_not_retryable_is_given_up_at_once() -> None:
    assert decide(Retry(), 1, retryable=False) == GiveUp(GiveUpReason.NOT_RETRYABLE)


def test_the_deadline_spans_attempts_and_waits() -> None:
    retry = Retry(attempts=10, backoff="constant", delay="100ms", deadline="1s")
    assert decide(retry, 1, fraction=0.5, elapsed_ms=949) == RetryAfter(50)
    assert decide(retry, 1, fraction=0.5, elapsed_ms=950) == GiveUp(GiveUpReason.DEADLINE)
    assert decide(retry, 1, fraction=0.0, elapsed_ms=1_000) == GiveUp(GiveUpReason.DEADLINE)


def test_a_least_wait_that_was_asked_for_is_kept_even_over_the_cap() -> None:
    retry = Retry(delay="100ms", cap="1s", backoff="constant")
    assert decide(retry, 1, after_ms=5_000) == RetryAfter(5_000)
    assert decide(retry, 1, after_ms=50) == RetryAfter(99)
    assert decide(Retry(deadline="2s"), 1, after_ms=5_000) == GiveUp(GiveUpReason.DEADLINE)


@given(
    st.integers(1, 10**6),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["constant", "linear", "exponential"]),
    st.integers(0, 10**6),
)
def test_the_wait_never_leaves_its_bounds(number: int, fraction: float, backoff: Any, delay_ms: int) -> None:
    cap_ms = 10**7
    retry = Retry(
        attempts=10**9, backoff=backoff, delay=timedelta(milliseconds=delay_ms), cap=timedelta(milliseconds=cap_ms)
    )
    decision = decide(retry, number, fraction)
    assert isinstance(decision, RetryAfter)
    assert 0 <= decision.delay_ms <= min(cap_ms, MILLISECONDS_MAX)


def test_the_fraction_is_fixed_for_ever() -> None:
    assert fraction_of("3.abc", "/do/1/pay", 1) == 0.9800730710174345  # by sha256sum
    assert fraction_of("3.abc", "/do/1/pay", 2) != fraction_of("3.abc", "/do/1/pay", 1)
    assert fraction_of("3.ab", "c/do/1/pay", 1) != fraction_of("3.abc", "/do/1/pay", 1)


def test_fractions_are_spread_evenly() -> None:
    buckets = [0] * 10
    for number in range(10_000):
        fraction = fraction_of("3.abc", "/1/pay", number)
        assert 0 <= fraction < 1
        buckets[int(fraction * 10)] += 1
    assert min(buckets) > 900
    assert max(buckets) < 1_100


class Flaky(ConnectionError):
    pass


NETWORK = Retry(on=(ConnectionError, TimeoutError), never=(Flaky,))


@pytest.mark.parametrize(
    ("retry", "error", "expected"),
    [
        (Retry(), ValueError(), True),
        (Retry(), TimeoutError(), True),
        (Retry(), SystemExit(1), True),
        (Retry(), KeyboardInterrupt(), True),
        (Retry(), asyncio.CancelledError(), True),
        (Retry(), NonRetryable("no"), False),
        (None, ValueError(), True),
        (None, SystemExit(), True),
        (None, NonRetryable("no"), False),
        (None, Retryable("yes"), True),
        (Retry(), Rejected("no"), False),
        (Retry(), Transient("later"), True),
        (Retry(never=(ValueError,)), ValueError(), False),
        (Retry(never=(ValueError,)), UnicodeError(), False),
        (NETWORK, ConnectionResetError(), True),
        (NETWORK, Flaky(), False),
        (NETWORK, ValueError(), False),
        (NETWORK, SystemExit(), False),
        (NETWORK, asyncio.CancelledError(), False),
        (NETWORK, Retryable("yes"), True),
        (Retry(never=(Exception,)), Retryable("yes"), True),
        (Retry(on=()), ValueError(), False),
        (Retry(), ExceptionGroup("", [ValueError(), NonRetryable("no")]), False),
        (Retry(), ExceptionGroup("", [Retryable("yes"), ExceptionGroup("", [NonRetryable("no")])]), False),
        (NETWORK, ExceptionGroup("", [ConnectionResetError(), TimeoutError()]), True),
        (NETWORK, ExceptionGroup("", [ConnectionResetError(), ValueError()]), False),
        (NETWORK, ExceptionGroup("", [ConnectionResetError(), Flaky()]), False),
        (NETWORK, ExceptionGroup("", [ValueError(), Retryable("yes")]), True),
        (Retry(on=(ExceptionGroup,)), ExceptionGroup("", [ValueError()]), True),
    ],
)
def test_which_errors_allow_another_attempt(retry: Retry | None, error: BaseException, expected: bool) -> None:
    assert is_retryable(retry, error) is expected


def test_the_longest_wait_that_is_asked_for_counts() -> None:
    assert least_wait_ms(ValueError()) is None
    assert least_wait_ms(Retryable("x")) is None
    assert least_wait_ms(Retryable("x", after="0s")) == 0
    assert least_wait_ms(Transient("x", retry_after_ms=70)) == 70
    group = ExceptionGroup(
        "", [Retryable("x", after="2s"), ExceptionGroup("", [Retryable("y", after="3s"), ValueError()])]
    )
    assert least_wait_ms(group) == 3_000
    with pytest.raises(DefinitionError):
        least_wait_ms(Retryable("x", after="soon"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"attempts": 0}, "attempts=0"),
        ({"attempts": True}, "attempts=True"),
        ({"attempts": 2.0}, "attempts=2.0"),
        ({"backoff": "fibonacci"}, "constant, linear, exponential"),
        ({"delay": 1}, "Retry.delay"),
        ({"cap": "-1s"}, "Retry.cap"),
        ({"deadline": "0s"}, "Retry.deadline"),
        ({"delay": "1m"}, "raise cap"),
        ({"on": ValueError}, "tuple of exception classes"),
        ({"on": ("ValueError",)}, "not a subclass"),
        ({"never": (KeyboardInterrupt,)}, "not a subclass"),
    ],
)
def test_wrong_settings_are_refused_when_written(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        Retry(**wrong)
    assert says in refused.value.message


def test_it_is_a_value() -> None:
    assert Retry(delay="1s") == Retry(delay=timedelta(seconds=1))
    assert hash(Retry()) == hash(Retry())
    with pytest.raises(AttributeError):
        Retry().attempts = 3  # pyright: ignore[reportAttributeAccessIssue]
