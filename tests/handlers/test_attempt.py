import asyncio
from datetime import UTC, datetime

import pytest

from headrace.handlers.attempt import Attempt, current_attempt, enter_attempt, leave_attempt

ATTEMPT = Attempt(idempotency_key="k", number=2, run_id="3.abc", task="/1/pay", deadline_ms=1_795_257_001_005)


def test_outside_of_an_attempt_there_is_none() -> None:
    with pytest.raises(LookupError, match="for handlers"):
        current_attempt()


def test_inside_it_is_the_one_that_was_entered() -> None:
    token = enter_attempt(ATTEMPT)
    assert current_attempt() is ATTEMPT
    leave_attempt(token)
    with pytest.raises(LookupError):
        current_attempt()


async def test_threads_see_it_too() -> None:
    token = enter_attempt(ATTEMPT)
    assert await asyncio.to_thread(current_attempt) is ATTEMPT
    leave_attempt(token)


def test_the_deadline_is_in_utc() -> None:
    assert ATTEMPT.deadline == datetime(2026, 11, 21, 10, 30, 1, 5_000, tzinfo=UTC)
