"""Attempts: held by breakers, pools and rate limits, deadlines, cancellation, and what is decided about retries."""

import asyncio
from collections.abc import Callable
from typing import Any

from headrace import Breaker, EventTrigger, NonRetryable, Pool, RateLimit, Retry, Run, TaskFailed, handler, workflow
from headrace.handlers.dispatch import HeldReason
from headrace.observability.label import BreakerResult
from headrace.service.definitions.app import App
from headrace.topics.command import Cancel
from headrace.topics.errors import Cause
from headrace.topics.identity import ClientId
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import AttemptFailed, AttemptSucceeded, RunEnded, RunStatus
from headrace.topics.run_record import CommandRecord, encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, Serving, app_of, event, serving, until


class Stove:
    """A handler of the test's own: it counts, waits at a gate, and fails when it is told to."""

    def __init__(self, **policies: Any) -> None:
        self.calls: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails: Callable[[int], BaseException | None] = lambda _n: None

        @handler(name="cook", **policies)
        async def cook(n: int) -> int:
            self.calls.append(n)
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(n)
                raise
            error = self.fails(n)
            if error is not None:
                raise error
            self.ended.append(n)
            return n

        self.cook = cook

    def app(self) -> App:
        cook = self.cook

        @workflow(on=EventTrigger("in", "order.placed"), name="order")
        async def order(run: Run, order: dict[str, Any]) -> int:
            return await run.call(cook, order["n"])

        return app_of(cook, order)


def counts(process: Serving) -> tuple[int, int, int]:
    """Offered attempts, those that run, active runs."""
    attempts = process.shared.attempts
    return len(attempts), sum(running for *_, running in attempts.in_progress()), process.shared.admission.active_runs


async def test_a_full_pool_holds_attempts_and_starts_them_in_order_without_using_any_up(place: Place) -> None:
    stove = Stove(pool=Pool("stove", size=1))
    stove.gate.clear()
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", *(event({"n": n}) for n in range(3)))
        await until(lambda: counts(process) == (3, 1, 1))  # held runs do not count as active
        held = process.shared.attempts.statistics().held
        assert sum(held.values()) == 2
        stove.gate.set()
        await until(lambda: len(process.observer.finished) == 3)
        assert counts(process) == (0, 0, 0)
    assert stove.ended == [0, 1, 2]
    assert [each.number for each in await place.outcomes(AttemptSucceeded)] == [1, 1, 1]


async def test_a_rate_limit_holds_attempts_in_order_without_using_any_up(place: Place) -> None:
    stove = Stove(rate_limit=RateLimit("stove", limit=20, per="1s", burst=1), retry=Retry(attempts=1))
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", *(event({"n": n}) for n in range(4)))
        await until(lambda: len(process.observer.finished) == 4)
        assert counts(process) == (0, 0, 0)
        passed = [(told.limiter, told.wait_ms) for told in process.observer.limits_passed]
        assert process.shared.attempts.statistics().limits[0].begun == 4
    assert stove.ended == [0, 1, 2, 3]
    assert [each.number for each in await place.outcomes(AttemptSucceeded)] == [1] * 4
    assert [limiter for limiter, _ in passed] == ["stove"] * 4
    assert passed[0][1] == 0


async def test_a_run_that_is_held_by_a_rate_limit_takes_no_room_and_is_made_elsewhere_after_a_stop(
    place: Place,
) -> None:
    limited = RateLimit("stove", limit=1, per="1h")
    stove = Stove(rate_limit=limited)
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}), event({"n": 1}))
        await until(lambda: counts(process) == (1, 0, 0) and len(process.observer.finished) == 1)
        assert process.shared.attempts.statistics().held == {("order", HeldReason.LIMIT): 1}
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:  # its limit is its own
        await until(lambda: len(process.observer.finished) == 1)
    assert stove.ended == [0, 1]
    assert {each.number for each in await place.outcomes(AttemptSucceeded)} == {1}


async def test_an_open_breaker_holds_and_its_attempts_begin_when_it_lets_them(place: Place) -> None:
    breaker = Breaker("stove", window=2, minimum_calls=2, open_for="60ms", probes=1)
    stove = Stove(breaker=breaker, retry=Retry(attempts=1))
    stove.fails = lambda n: ConnectionError("cold") if n < 2 else None
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}), event({"n": 1}))
        await until(lambda: len(process.observer.finished) == 2)
        await place.publish("in", event({"n": 2}), event({"n": 3}))
        await until(lambda: len(process.observer.finished) == 4)
        assert counts(process) == (0, 0, 0)
    results = [told.result for told in process.observer.breaker_calls]
    assert BreakerResult.HELD in results
    assert [(told.after, told.reason) for told in process.observer.breaker_changes] == [
        ("open", "of 2 calls, 2 failed and 0 were slow"),
        ("half_open", ""),
        ("closed", ""),
    ]
    assert [told.status for told in process.observer.finished[2:]] == [RunStatus.SUCCEEDED] * 2
    assert {each.number for each in await place.outcomes(AttemptSucceeded)} == {1}


async def test_a_breaker_that_says_fail_makes_a_failed_attempt_at_once(place: Place) -> None:
    breaker = Breaker("stove", window=1, minimum_calls=1, open_for="1h", on_open="fail")
    stove = Stove(breaker=breaker, retry=Retry(attempts=1))
    stove.fails = lambda _n: ConnectionError("cold")
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: len(process.observer.finished) == 1)
        await place.publish("in", event({"n": 1}))
        await until(lambda: len(process.observer.finished) == 2)
        assert counts(process) == (0, 0, 0)
    first, second = await place.outcomes(AttemptFailed)
    assert (first.cause, second.cause) == (Cause.RAISED, Cause.BREAKER_OPEN)
    assert stove.calls == [0]
    assert BreakerResult.REJECTED in [told.result for told in process.observer.breaker_calls]


async def test_the_deadline_goes_on_while_an_attempt_is_held(place: Place) -> None:
    stove = Stove(pool=Pool("stove", size=1), retry=Retry(attempts=3, deadline="1h"))
    stove.gate.clear()
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}), event({"n": 1}))
        await until(lambda: counts(process)[:2] == (2, 1))
        process.shared.clock.skew_ms += 3_600_000  # an hour later
        process.shared.timers._ring()
        (failed,) = await place.until_outcomes(AttemptFailed)
        assert (failed.cause, failed.retry_after_ms, failed.duration_ms) == (Cause.DEADLINE, None, 0.0)
        await until(lambda: len(process.observer.finished) == 1)
        assert counts(process)[:2] == (1, 1)
        stove.gate.set()
        await until(lambda: len(process.observer.finished) == 2)
    assert stove.calls == [0]


async def test_a_cancelled_run_gives_up_its_held_attempt_and_its_running_one(place: Place) -> None:
    stove = Stove(pool=Pool("stove", size=1))
    stove.gate.clear()
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}), event({"n": 1}))
        await until(lambda: counts(process)[:2] == (2, 1))
        running, held = list(process.service.owners[0].state.runs)
        for run in (held, running):
            record = CommandRecord(id=ClientId(f"cancel {run}"), body=Cancel(run=run, reason="changed our mind"))
            await place.log.publish(TopicPartition("shop.runs", 0), [NewRecord(value=encode(record))])
            await until(lambda run=run: run in [told.run for told in process.observer.finished])
        await until(lambda: counts(process) == (0, 0, 0))
        assert process.shared.attempts.statistics().running == 0
    assert stove.calls == stove.cancelled == [0]
    assert await place.outcomes(AttemptSucceeded) == []
    assert [each.status for each in await place.outcomes(RunEnded)] == [RunStatus.CANCELLED] * 2


async def test_a_step_given_up_while_held_no_longer_counts_as_held(place: Place) -> None:
    """The loser of a race waits for a pool; its run goes on to work, and is active then."""
    stove = Stove(pool=Pool("stove", size=1))
    stove.gate.clear()
    other_gate = asyncio.Event()

    @handler
    async def quick() -> int:
        return 1

    @handler
    async def slow() -> int:
        await other_gate.wait()
        return 2

    cook = stove.cook

    @workflow(on=EventTrigger("in", "race"), name="race")
    async def race(run: Run, order: dict[str, Any]) -> int:
        await run.race(run.call(cook, order["n"]), run.call(quick))
        return await run.call(slow)

    @workflow(on=EventTrigger("in", "order.placed"), name="order")
    async def order(run: Run, order: dict[str, Any]) -> int:
        return await run.call(cook, order["n"])

    async with serving(FaultLog(place.log), app_of(cook, quick, slow, race, order), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: stove.calls == [0])
        await place.publish("in", event({"n": 1}, type="race"))
        await until(
            lambda: any(name == "race" and running for name, _, running in process.shared.attempts.in_progress())
        )
        await place.until(lambda: place.outcomes(AttemptSucceeded), lambda found: len(found) == 1)
        live = next(
            live for live in process.service.owners[0].runs.live.values() if live.state.start.workflow == "race"
        )
        await until(lambda: list(live.calls.values()) and "slow" in next(iter(live.calls)))
        assert live.held == set()
        assert not live.waits()
        other_gate.set()
        stove.gate.set()
        await until(lambda: len(process.observer.finished) == 2)


async def test_a_held_attempt_is_still_held_under_a_new_token(place: Place) -> None:
    stove = Stove(pool=Pool("stove", size=1))
    stove.gate.clear()
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}), event({"n": 1}))
        await until(lambda: counts(process) == (2, 1, 1))
        process.service.owners[0]._break()
        await until(lambda: len(process.observer.taken) == 2 and len(process.service.owners[0].runs.live) == 2)
        assert counts(process) == (2, 1, 1)
        stove.gate.set()
        await until(lambda: len(process.observer.finished) == 2)
        assert counts(process) == (0, 0, 0)
    assert stove.calls == [0, 1]


async def test_the_decision_about_a_retry_is_in_the_record(place: Place) -> None:
    stove = Stove(retry=Retry(attempts=3, delay="1ms"))
    stove.fails = lambda _n: ConnectionError("cold") if len(stove.calls) < 3 else None
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: process.observer.finished)
    failures = await place.outcomes(AttemptFailed)
    assert [(each.number, each.cause, each.error) for each in failures] == [
        (1, Cause.RAISED, "ConnectionError"),
        (2, Cause.RAISED, "ConnectionError"),
    ]
    assert all(each.retry_after_ms is not None and 0 <= each.retry_after_ms <= 2 for each in failures)
    assert [each.number for each in await place.outcomes(AttemptSucceeded)] == [3]
    assert process.observer.finished[0].retries == 2


async def test_a_handler_that_says_nothing_about_retries_gets_those_of_the_settings(place: Place) -> None:
    silent, own = Stove(), Stove(retry=Retry(attempts=1))
    for stove, events in ((silent, 1), (own, 2)):
        stove.fails = lambda _n: ConnectionError("cold")
        defaults = {"retry": {"attempts": 3, "backoff": "constant", "delay": "1ms", "cap": "1ms"}}
        async with serving(FaultLog(place.log), stove.app(), partitions=1, defaults=defaults) as process:
            await place.publish("in", event({"n": events}))
            await until(lambda process=process: process.observer.finished)
    assert (len(silent.calls), len(own.calls)) == (3, 1)
    assert [each.number for each in await place.outcomes(AttemptFailed)] == [1, 2, 3, 1]


async def test_the_settings_deadline_ends_a_held_task_of_such_a_handler(place: Place) -> None:
    stove = Stove(pool=Pool("stove", size=1))
    stove.gate.clear()
    defaults = {"retry": {"deadline": "1h"}}
    async with serving(FaultLog(place.log), stove.app(), partitions=1, defaults=defaults) as process:
        await place.publish("in", event({"n": 0}), event({"n": 1}))
        await until(lambda: counts(process)[:2] == (2, 1))
        process.shared.clock.skew_ms += 3_600_000
        process.shared.timers._ring()
        (failed,) = await place.until_outcomes(AttemptFailed)
        assert failed.cause is Cause.DEADLINE
        stove.gate.set()
        await until(lambda: len(process.observer.finished) == 2)


async def test_the_last_failure_and_one_that_never_helps_are_for_good(place: Place) -> None:
    stove = Stove(retry=Retry(attempts=2, delay="1ms"))
    stove.fails = lambda n: NonRetryable("no such dish") if n == 0 else ConnectionError("cold")
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: len(process.observer.finished) == 1)
        await place.publish("in", event({"n": 1}))
        await until(lambda: len(process.observer.finished) == 2)
    failures = await place.outcomes(AttemptFailed)
    assert [(each.number, each.retry_after_ms is None) for each in failures] == [(1, True), (1, False), (2, True)]
    assert [told.error for told in process.observer.finished] == [TaskFailed.__name__] * 2


async def test_an_attempt_that_never_returns_is_timed_out_and_tried_again(place: Place) -> None:
    stove = Stove(timeout="20ms", retry=Retry(attempts=2, delay="1ms"))
    stove.gate.clear()
    async with serving(FaultLog(place.log), stove.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await place.until_outcomes(AttemptFailed, 2)
        await until(lambda: process.observer.finished)
    assert [each.cause for each in await place.outcomes(AttemptFailed)] == [Cause.TIMED_OUT] * 2
    assert stove.cancelled == [0, 0]
