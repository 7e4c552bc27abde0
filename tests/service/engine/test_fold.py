"""The fold: what each record means for a partition."""

from typing import Any

import msgspec
import pytest

from headrace import Run, workflow
from headrace.service.engine.fold import fold
from headrace.service.engine.gate import Skip
from headrace.service.engine.instruction import Rearm, Send, TryAgain
from headrace.service.engine.run_state import Phase
from headrace.service.engine.state import Given, Output, RefusedOutput
from headrace.topics.command import Abandoned, Cancel, Deliver, OnConflict, Resume, Start
from headrace.topics.errors import Cause
from headrace.topics.identity import ClientId
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptsGiven,
    AttemptSucceeded,
    Emitted,
    OutboxProgress,
    Outcome,
    OutputRefused,
    ParkReason,
    RunEnded,
    RunningAttempt,
    RunParked,
    RunStatus,
    Sent,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, Release
from tests.service.engine.driver import Driver, empty_state
from tests.service.engine.workflows import emits, shop


@workflow(name="sleeps")
async def sleeps(run: Run, _: Any) -> None:
    await run.sleep("1s")


# --- cancel, park, resume ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [Cancel(run="0.none"), Resume(run="0.none")])
def test_commands_to_an_unknown_run_have_no_effect(command: Cancel | Resume) -> None:
    driver = Driver(shop)
    driver.command(command)
    assert driver.last.without_effect


def test_resume_is_for_parked_runs_alone() -> None:
    driver = Driver(shop)
    first, second = (driver.start(shop, n, key="k", policy=OnConflict.QUEUE) for n in (1, 2))
    driver.resume(first)
    assert driver.last.without_effect
    driver.resume(second)
    assert driver.last.without_effect


def test_a_parked_run_collects_and_does_not_go_on() -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    result = attempt(driver, run)
    driver.propose(RunParked(run=run, reason=ParkReason.POISON))
    driver.propose(RunParked(run=run, reason=ParkReason.POISON))
    assert driver.last.without_effect
    driver.propose(result)
    assert driver.last.instructions == []
    driver.resume(run)
    assert driver.result(run) == 1


# --- attempts ---------------------------------------------------------------------------------------------------------


def attempt(driver: Driver, run: str, step: str = "/1/work", number: int = 1) -> AttemptSucceeded:
    return AttemptSucceeded(run, step, "work", number, msgspec.Raw(b"1"), driver.now_ms, 1.0)


def failure(run: str, number: int, retry_after_ms: int | None, step: str = "/1/work") -> AttemptFailed:
    return AttemptFailed(run, step, "work", number, Cause.RAISED, "E", "m", 0, 1.0, retry_after_ms)


def test_failures_are_counted_and_the_next_attempt_is_due_by_the_records_own_time() -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    driver.now_ms += 40
    driver.propose(failure(run, 1, 100))
    (again,) = driver.instructions
    assert isinstance(again, TryAgain)
    assert (again.number, again.due_at_ms) == (2, driver.now_ms + 100)
    driver.propose(failure(run, 2, 100))
    driver.restart()
    assert driver.numbers[run, "/1/work"] == 3
    driver.propose(failure(run, 3, None))
    assert driver.ended(run).status == "failed"


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_failure_of_another_attempt_than_the_next_is_late(number: int) -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    driver.propose(failure(run, 1, 100))
    driver.propose(failure(run, number, 100))
    assert driver.last.without_effect
    assert driver.state.runs[run].tries["/1/work"].failed == 1


def test_a_late_outcome_is_skipped() -> None:
    driver = Driver(emits)
    run = driver.start(emits)
    driver.propose(Emitted(run, "/1/emit", "out", "shop.done", msgspec.Raw(b"2")))
    assert driver.last.without_effect
    assert [bytes(output.emitted.data) for output in driver.outputs()] == [b"1"]


def unknown(run: str) -> list[Outcome]:
    return [
        AttemptSucceeded(run, "/1/work", "work", 1, msgspec.Raw(b"1"), 0, 1.0),
        failure(run, 1, None),
        failure(run, 1, 5),
        TimerArmed(run, "/1/sleep", 5),
        TimerFired(run, "/1/sleep", 5),
        StepsCancelled(run, ("/1/work",)),
        Emitted(run, "/1/emit", "out", "t", msgspec.Raw(b"1")),
        OutputRefused(f"{run}/1/emit", "HR6001", "no"),
        RunEnded(run, RunStatus.FAILED),
        RunParked(run, ParkReason.POISON),
    ]


@pytest.mark.parametrize("index", range(10))
def test_an_outcome_of_an_unknown_run_has_no_effect(index: int) -> None:
    driver = Driver(shop)
    driver.propose(unknown("0.00000000000000000000")[index])
    assert driver.last.without_effect
    assert (len(driver.state.runs), driver.state.outbox, driver.last.instructions) == (0, {}, [])


@pytest.mark.parametrize("index", range(10))
def test_nothing_is_effective_after_the_terminal_record(index: int) -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    driver.succeed(run, "/1/work", 1)
    driver.propose(unknown(run)[index])
    assert driver.last.without_effect
    assert driver.ended(run).status == "succeeded"


# --- timers -----------------------------------------------------------------------------------------------------------


def test_a_timer_that_comes_early_is_armed_again() -> None:
    driver = Driver(sleeps)
    run = driver.start(sleeps)
    due_at_ms = driver.due[run, "/1/sleep"]
    driver.propose(TimerFired(run, "/1/sleep", due_at_ms), at_ms=due_at_ms - 7)
    (again,) = driver.instructions
    assert isinstance(again, Rearm)
    assert (again.due_at_ms, again.early_ms) == (due_at_ms, 7)
    driver.propose(TimerFired(run, "/1/sleep", due_at_ms), at_ms=due_at_ms)
    assert driver.ended(run).status == "succeeded"


def test_an_armed_timer_is_state_until_it_fires() -> None:
    driver = Driver(sleeps)
    run = driver.start(sleeps)
    due_at_ms = driver.due[run, "/1/sleep"]
    assert driver.state.runs[run].timers == {"/1/sleep": due_at_ms}
    records = len(driver.log)
    driver.restart()
    assert driver.due[run, "/1/sleep"] == due_at_ms
    assert len(driver.log) == records + 1  # the announce: it is not armed twice
    driver.fire(run, "/1/sleep")
    assert driver.closed[run].timers == {}


def test_append_time_may_step_back_and_a_runs_clock_does_not() -> None:
    driver = Driver(shop, emits)
    run = driver.start(emits)
    clock_ms = driver.state.runs[run].clock_ms
    driver.now_ms -= 1000
    driver.start(shop)
    assert driver.state.clock_ms >= clock_ms
    driver.propose(failure(run, 1, 10, "/2/other"))
    driver.cancel(run)
    assert driver.ended(run).status == "cancelled"


# --- the outbox -------------------------------------------------------------------------------------------------------


def test_outputs_of_an_ended_run_stay_until_they_are_acknowledged() -> None:
    driver = Driver(emits)
    run = driver.start(emits)
    driver.succeed(run, "/2/other")
    assert driver.ended(run).status == "succeeded"
    driver.restart()
    (output,) = driver.outputs()
    assert (output.id, output.run) == (f"{run}/1/emit", run)
    driver.propose(OutboxProgress(sent=(Sent(output.id, 0, 5), Sent("unknown", 0, 0))))
    assert driver.state.outbox == {}


def test_an_emit_is_sent_before_its_run_goes_on() -> None:
    driver = Driver(emits)
    driver.auto = False
    driver.start(emits)
    driver.read()
    kinds = [type(each) for each in driver.instructions]
    assert kinds[0] is Send


def test_a_refused_output_of_an_ended_run_becomes_a_dead_letter_and_the_run_stays_as_it_ended() -> None:
    driver = Driver(emits)
    run = driver.start(emits)
    driver.succeed(run, "/2/other")
    driver.refuse(f"{run}/1/emit")
    (entry,) = driver.entries(RefusedOutput)
    assert isinstance(entry, RefusedOutput)
    assert (entry.output.run, entry.code) == (run, "HR6001")
    assert driver.ended(run).status == "succeeded"
    driver.refuse(entry.id)  # dead letters are not refused
    assert driver.last.without_effect


def test_a_refused_output_of_a_run_that_ends_of_something_else_becomes_a_dead_letter() -> None:
    """It was said too late to be the run's end, and too early to find it ended."""
    driver = Driver(emits)
    run = driver.start(emits)
    driver.auto = False
    driver.succeed(run, "/2/other")
    driver.refuse(f"{run}/1/emit")
    driver.propose(RunEnded(run, RunStatus.SUCCEEDED))
    driver.read()
    (entry,) = driver.entries(RefusedOutput)
    assert isinstance(entry, RefusedOutput)
    assert (entry.output.run, entry.output.emitted.type, entry.code) == (run, "shop.done", "HR6001")
    assert bytes(entry.output.emitted.data) == b"1"
    assert run not in driver.state.runs


def test_a_refused_output_that_is_the_end_of_its_run_has_no_dead_letter() -> None:
    driver = Driver(emits)
    run = driver.start(emits)
    driver.refuse(f"{run}/1/emit")
    assert (driver.ended(run).status, driver.ended(run).failed_step) == ("failed", "/1/emit")
    assert driver.state.outbox == {}


def test_an_output_carries_what_its_record_needs() -> None:
    driver = Driver(emits)
    driver.start(emits, key="k", traceparent="tp", tracestate="ts", event_at_ms=5)
    (output,) = driver.outputs()
    assert isinstance(output, Output)
    assert (output.workflow, output.namespace, output.run_key) == ("emits", "default", "k")
    assert (output.traceparent, output.tracestate, output.event_at_ms, output.origin) == ("tp", "ts", 5, None)
    assert output.at_ms == driver.now_ms


# --- ownership and hand-over ------------------------------------------------------------------------------------------


def released(driver: Driver, run: str, number: int = 1) -> None:
    driver.append(
        Release(
            token=driver.state.gate.token,
            seq=driver.state.gate.seq + 1,
            attempts=(RunningAttempt(run, "/1/work", number),),
            grace_ms=10_000,
        )
    )


def deliver(driver: Driver, result: AttemptSucceeded | AttemptFailed | Abandoned) -> None:
    identity = ClientId(f"deliver/{result.run}{result.step}/{result.number}")
    driver.command(Deliver(token=0, result=result), identity)


def test_a_release_lists_what_its_successor_leaves_alone_and_the_delivered_result_counts() -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    released(driver, run)
    giver = driver.state.gate.holder
    assert giver
    assert driver.state.given == {(run, "/1/work"): Given(1, driver.now_ms + 10_000, giver)}
    driver.append(Announce("test", "i2", "m", "nonce-2", 0, 1))
    assert driver.last.skip is None
    deliver(driver, attempt(driver, run))
    assert driver.state.given == {}
    assert driver.result(run) == 1


def test_a_second_release_keeps_what_an_earlier_giver_still_runs_until_its_grace_is_over() -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    released(driver, run)
    first = driver.state.given
    driver.append(Announce("test", "i2", "second", "nonce-2", 0, 1))
    driver.append(Release(driver.state.gate.token, 0, (RunningAttempt("0.other", "/1/work", 2),), 20_000))
    assert driver.state.given == first | {("0.other", "/1/work"): Given(2, driver.now_ms + 20_000, "second")}
    driver.now_ms += 11_000
    driver.append(Announce("test", "i3", "third", "nonce-3", driver.state.gate.last, 1))
    driver.append(Release(driver.state.gate.token, 0, (), 20_000))
    assert list(driver.state.given) == [("0.other", "/1/work")]


def test_what_a_release_has_no_room_for_is_listed_before_it() -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    driver.propose(AttemptsGiven(attempts=(RunningAttempt("0.other", "/1/work", 2),), grace_ms=10_000))
    released(driver, run)
    giver = driver.state.gate.holder
    assert driver.state.given == {
        (run, "/1/work"): Given(1, driver.now_ms + 10_000, giver),
        ("0.other", "/1/work"): Given(2, driver.now_ms + 10_000, giver),
    }
    deliver(driver, attempt(driver, run))
    assert list(driver.state.given) == [("0.other", "/1/work")]


def test_the_first_result_of_an_attempt_wins() -> None:
    driver = Driver(shop, emits)
    run = driver.start(emits)
    first = AttemptSucceeded(run, "/2/other", "other", 1, msgspec.Raw(b"1"), 0, 1.0)
    deliver(driver, first)
    assert driver.ended(run).status == "succeeded"
    deliver(driver, first)
    assert driver.last.skip is Skip.DUPLICATE
    driver.propose(first)
    assert driver.last.without_effect


def test_a_delivered_failure_is_tried_again() -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    released(driver, run)
    deliver(driver, failure(run, 1, 50))
    (again,) = driver.instructions
    assert isinstance(again, TryAgain)
    assert again.number == 2


def test_an_abandoned_attempt_is_repeated_with_the_same_number() -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    driver.propose(failure(run, 1, 50))
    released(driver, run, 2)
    deliver(driver, Abandoned(run, "/1/work", 2))
    (again,) = driver.instructions
    assert isinstance(again, TryAgain)
    assert (again.number, again.due_at_ms, again.failed) == (2, driver.now_ms, None)
    assert driver.state.given == {}


@pytest.mark.parametrize("number", [1, 3])
def test_an_abandoned_attempt_that_is_not_the_next_one_has_no_effect(number: int) -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    driver.propose(failure(run, 1, 50))
    deliver(driver, Abandoned(run, "/1/work", number))
    assert driver.last.without_effect


def test_an_abandoned_attempt_of_a_finished_task_or_an_unknown_run_has_no_effect() -> None:
    driver = Driver(emits)
    run = driver.start(emits)
    deliver(driver, Abandoned(run, "/1/emit", 1))
    assert driver.last.without_effect
    deliver(driver, Abandoned("0.none", "/1/work", 1))
    assert driver.last.without_effect


def test_an_abandoned_attempt_of_a_parked_run_waits_for_its_resumption() -> None:
    driver = Driver(shop)
    run = driver.start(shop)
    driver.propose(RunParked(run, ParkReason.POISON))
    deliver(driver, Abandoned(run, "/1/work", 1))
    assert driver.instructions == []
    driver.resume(run)
    assert driver.numbers[run, "/1/work"] == 1


def test_every_record_moves_the_offset_even_one_that_does_not_count() -> None:
    state = empty_state()
    for offset in (0, 4, 9):  # a Kafka log has holes
        fold(state, offset, 0, 1, Announce("a", "i", "m", "x", 99, 1))
        assert state.next_offset == offset + 1


def test_a_cancelled_run_is_not_parked_any_more() -> None:
    driver = Driver()  # its code is not loaded: nobody ends it here
    run = driver.start("shop")
    driver.cancel(run)
    driver.propose(RunParked(run, ParkReason.NONDETERMINISTIC))
    assert driver.last.without_effect
    assert driver.state.runs[run].phase is Phase.OPEN


def test_cancelled_steps_leave_no_tries_and_no_timers() -> None:
    driver = Driver()
    run = driver.start("shop")
    driver.propose(failure(run, 1, 10))
    driver.propose(TimerArmed(run, "/2/sleep", 5))
    driver.propose(StepsCancelled(run, ("/1/work", "/2/sleep")))
    state = driver.state.runs[run]
    assert (state.tries, state.timers, state.settled) == ({}, {}, {"/1/work", "/2/sleep"})


def test_a_run_rests_only_if_it_has_noticed_nothing_since_it_said_so() -> None:
    """A cancel may be appended between the turn in which a run came to rest and the record that says it: who takes over must not let it sleep."""
    state = empty_state()
    fold(state, 0, 1, 1, Announce("test", "i", "m", "n", -1, 1))
    fold(state, 1, 1, 1, CommandRecord(ClientId("s"), Start("default", "w", "1", msgspec.Raw(b"null"))))
    (run,) = state.runs
    fold(state, 2, 1, 1, OutcomeRecord(0, 0, TimerArmed(run, "/1/sleep", 5, rests_at=0)))
    assert state.runs[run].rests
    fold(state, 3, 1, 1, CommandRecord(ClientId("c"), Cancel(run)))
    assert not state.runs[run].rests
    fold(state, 4, 1, 1, OutcomeRecord(0, 1, TimerArmed(run, "/2/sleep", 5, rests_at=0)))
    assert not state.runs[run].rests
    fold(state, 5, 1, 1, OutcomeRecord(0, 2, TimerArmed(run, "/3/sleep", 5)))
    assert not state.runs[run].rests
