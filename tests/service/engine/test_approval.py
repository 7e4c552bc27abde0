"""Approvals: who may decide, until when, which decision counts, and what becomes of those that nobody decides."""

from datetime import UTC, datetime
from typing import Any

import pytest

from headrace import Approval, Run, workflow
from headrace.service.engine.checkpoint import dump, load
from headrace.service.engine.instruction import Advance, Decided, Requested
from headrace.service.engine.limit import LimitExceeded
from headrace.service.engine.run_bytes import pack, unpack
from headrace.service.engine.run_state import Phase
from headrace.topics.approval import ApprovalEnding, Verdict
from headrace.topics.command import Cancel
from headrace.topics.outcome import ParkReason, RunParked, TimerFired
from tests.service.engine.driver import BEGAN_MS, Driver, empty_state
from tests.service.engine.handlers import other, work

ASK = "/1/approval"
HOUR_MS = 3_600_000


@workflow()
async def asks(run: Run, _: Any) -> list[str]:
    """Somebody of finance, within an hour."""
    said = await run.approval(title="Pay 1 000?", roles=["finance", "boss"], timeout="1h")
    return [said.decision, said.by, said.note, said.at.isoformat()]


@workflow()
async def waits(run: Run, _: Any) -> str:
    """Anybody, at any time."""
    return (await run.approval()).decision


def endings(driver: Driver) -> list[tuple[ApprovalEnding, str]]:
    return [(each.ending, each.by) for each in driver.instructions if isinstance(each, Decided)]


def test_the_state_says_what_is_asked_until_somebody_has_decided() -> None:
    driver = Driver(asks)
    driver.now_ms += 5
    run = driver.start(asks, key="order-7")
    (request,) = driver.state.approvals.values()
    assert (request.run, request.step, request.workflow, request.namespace) == (run, ASK, "asks", "default")
    assert (request.key, request.title, request.roles) == ("order-7", "Pay 1 000?", ("finance", "boss"))
    assert (request.requested_at_ms, request.due_at_ms) == (driver.now_ms, driver.now_ms + HOUR_MS)
    driver.now_ms += 1_500
    driver.approve(run, ASK, by="ann", note="go on", roles=("clerk", "boss"))
    assert driver.result(run) == ["approved", "ann", "go on", "2023-11-14T22:13:21.505000+00:00"]
    assert driver.state.approvals == {}


def test_a_rejection_is_data() -> None:
    driver = Driver(asks)
    run = driver.start(asks)
    driver.approve(run, ASK, Verdict.REJECTED, by="bob", note="too dear", roles=("finance",))
    assert driver.result(run)[:3] == ["rejected", "bob", "too dear"]


def test_an_approval_says_whether_it_was_given() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert Approval(decision="approved", by="ann", at=at).approved
    assert not Approval(decision="rejected", by="ann", at=at).approved
    assert not Approval(decision="expired", by="", at=at).approved


@pytest.mark.parametrize("roles", [(), ("clerk",), ("Finance",)])
def test_who_has_none_of_the_roles_decides_nothing(roles: tuple[str, ...]) -> None:
    driver = Driver(asks)
    run = driver.start(asks)
    driver.approve(run, ASK, roles=roles)
    assert driver.last.without_effect
    assert driver.open(run) == [ASK]
    driver.approve(run, ASK, Verdict.REJECTED, roles=("finance",))
    assert driver.result(run)[0] == "rejected"


def test_anybody_may_decide_where_no_role_is_asked_for() -> None:
    driver = Driver(waits)
    run = driver.start(waits)
    assert next(iter(driver.state.approvals.values())).due_at_ms is None
    driver.now_ms += 1_000 * HOUR_MS
    driver.approve(run, ASK)
    assert driver.result(run) == "approved"


def test_of_two_decisions_the_first_counts() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        said = await run.approval()
        await run.call(work, 1)
        return said.decision

    driver = Driver(body)
    run = driver.start(body)
    driver.approve(run, ASK, Verdict.REJECTED, by="bob")
    assert endings(driver) == [(ApprovalEnding.REJECTED, "bob")]
    driver.approve(run, ASK, by="ann")
    assert driver.last.without_effect
    assert endings(driver) == []
    driver.succeed(run, "/2/work")
    assert driver.result(run) == "rejected"


def test_nothing_can_be_decided_before_it_is_asked() -> None:
    driver = Driver(waits)
    driver.auto = False
    run = driver.start(waits)
    driver.approve(run, ASK)
    driver.auto = True
    driver.read()
    assert driver.open(run) == [ASK]


@pytest.mark.parametrize("run", ["0.0123456789abcdef0123", "nobody"])
def test_a_decision_about_no_run_has_no_effect(run: str) -> None:
    driver = Driver(waits)
    driver.approve(run, ASK)
    assert driver.last.without_effect


# --- the deadline ----------------------------------------------------------------------------------------------------


def test_nobody_in_time_is_data_too() -> None:
    driver = Driver(asks)
    run = driver.start(asks)
    driver.fire(run, ASK)
    decision, by, note, at = driver.result(run)
    assert (decision, by, note) == ("expired", "", "")
    assert at == datetime.fromtimestamp((BEGAN_MS + HOUR_MS) / 1000, UTC).isoformat()


@pytest.mark.parametrize(
    ("at_ms", "decision"), [(HOUR_MS - 1, "approved"), (HOUR_MS, "expired"), (HOUR_MS + 1, "expired")]
)
def test_an_answer_counts_before_the_deadline_by_its_own_append_time(at_ms: int, decision: str) -> None:
    driver = Driver(asks)
    run = driver.start(asks)
    driver.now_ms = BEGAN_MS + at_ms
    driver.approve(run, ASK, roles=("boss",))
    if decision == "expired":
        assert driver.last.without_effect
        assert driver.open(run) == [ASK]
        driver.fire(run, ASK)
    assert driver.result(run)[0] == decision


def test_a_deadline_that_comes_early_by_the_logs_clock_ends_nothing() -> None:
    driver = Driver(asks)
    run = driver.start(asks)
    driver.propose(TimerFired(run, ASK, BEGAN_MS + HOUR_MS), at_ms=BEGAN_MS + HOUR_MS - 1)
    driver.approve(run, ASK, roles=("boss",))
    assert driver.result(run)[0] == "approved"


def test_an_answer_behind_the_expiry_comes_too_late_whatever_its_time_says() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        said = await run.approval(timeout="1h")
        await run.call(work, 1)
        return said.decision

    driver = Driver(body)
    run = driver.start(body)
    driver.fire(run, ASK)
    assert endings(driver) == [(ApprovalEnding.EXPIRED, "")]
    driver.now_ms -= 1
    driver.approve(run, ASK)
    assert driver.last.without_effect
    driver.succeed(run, "/2/work")
    assert driver.result(run) == "expired"


def test_a_timer_behind_the_answer_has_no_effect() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        said = await run.approval(timeout="1h")
        await run.call(work, 1)
        return said.decision

    driver = Driver(body)
    run = driver.start(body)
    driver.approve(run, ASK)
    assert driver.state.runs[run].timers == {}
    driver.fire(run, ASK)
    assert driver.last.without_effect
    driver.succeed(run, "/2/work")
    assert driver.result(run) == "approved"


# --- among other steps -----------------------------------------------------------------------------------------------


def test_approvals_wait_side_by_side() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[str]:
        said = await run.gather(run.approval(roles=["a"]), run.approval(roles=["b"]))
        return [each.by for each in said]

    driver = Driver(body)
    run = driver.start(body)
    assert driver.open(run) == ["/1/approval", "/2/approval"]
    driver.approve(run, "/2/approval", by="ben", roles=("b",))
    driver.restart()
    driver.approve(run, "/1/approval", by="ada", roles=("a",))
    assert driver.result(run) == ["ada", "ben"]


def test_the_loser_of_a_race_is_withdrawn() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        won = await run.race(run.approval(title="stop?"), run.call(work, 1))
        await run.call(other, 2)
        return str(won)

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/2/work", "done")
    assert driver.state.approvals == {}
    driver.approve(run, ASK)
    assert driver.last.without_effect
    driver.succeed(run, "/4/other")
    assert driver.result(run) == "done"


def test_withdrawing_is_told() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        step = run.approval()
        await run.call(work, 1)
        step.cancel()
        await run.call(other, 2)

    driver = Driver(body)
    run = driver.start(body)
    told: list[Any] = []
    driver.auto = False
    driver.succeed(run, "/2/work")
    while driver.state.next_offset < len(driver.log):
        driver.read(1)
        told += endings(driver)
    assert told == [(ApprovalEnding.WITHDRAWN, "")]


def test_helpers_in_a_map_ask_at_places_of_their_own() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[bool]:
        async def each(name: str) -> bool:
            return (await run.approval(title=name)).approved

        return await run.map(each, ["a", "b"])

    driver = Driver(body)
    run = driver.start(body)
    asked = {request.title: request.step for request in driver.state.approvals.values()}
    assert asked == {"a": "/1/0/1/approval", "b": "/1/1/1/approval"}
    driver.approve(run, asked["b"])
    driver.approve(run, asked["a"], Verdict.REJECTED)
    assert driver.result(run) == [False, True]


def test_an_ended_run_asks_nobody() -> None:
    driver = Driver(asks)
    run = driver.start(asks)
    driver.cancel(run, "no more")
    assert driver.ended(run).status == "cancelled"
    assert driver.state.approvals == {}
    driver.approve(run, ASK, roles=("boss",))
    assert driver.last.without_effect


def test_a_timeout_of_the_run_withdraws_what_it_asks() -> None:
    driver = Driver(waits)
    run = driver.start(waits)
    driver.time_out(run)
    assert driver.ended(run).status == "timed_out"
    assert driver.state.approvals == {}


# --- restarts, parking, bytes ----------------------------------------------------------------------------------------


def test_a_restart_asks_nobody_again() -> None:
    driver = Driver(asks)
    run = driver.start(asks)
    driver.restart()
    driver.restart()
    assert sum(b"approval.requested" in value for _, value in driver.log) == 1
    driver.approve(run, ASK, roles=("boss",))
    assert driver.result(run)[0] == "approved"


def test_it_is_told_once_that_somebody_is_asked() -> None:
    driver = Driver(waits)
    driver.auto = False
    run = driver.start(waits)
    driver.read(2)
    asked = [each for each in driver.instructions if isinstance(each, Requested)]
    assert [each.request.step for each in asked] == [ASK]
    driver.append(decoded_again(driver))
    driver.read()
    assert driver.instructions == []
    assert driver.state.runs[run].approvals == {ASK}


def decoded_again(driver: Driver) -> Any:
    """The same request once more, as an owner would that was woken before it had read the first one back."""
    from headrace.topics.outcome import ApprovalRequested
    from headrace.topics.run_record import OutcomeRecord, decode

    record = decode(driver.log[-1][1])
    assert isinstance(record, OutcomeRecord)
    assert isinstance(record.body, ApprovalRequested)
    return OutcomeRecord(record.token, record.seq + 1, record.body)


def test_a_parked_run_can_still_be_decided_about() -> None:
    driver = Driver(asks)
    run = driver.start(asks)
    driver.propose(RunParked(run=run, reason=ParkReason.POISON))
    assert driver.state.runs[run].phase is Phase.PARKED
    assert len(driver.state.approvals) == 1
    driver.approve(run, ASK, by="ann", roles=("boss",))
    assert not driver.last.without_effect
    assert endings(driver) == [(ApprovalEnding.APPROVED, "ann")]
    assert not any(isinstance(each, Advance) for each in driver.instructions)
    driver.resume(run)
    assert driver.result(run)[:2] == ["approved", "ann"]


def test_an_open_approval_is_in_a_checkpoint() -> None:
    driver = Driver(asks, waits)
    driver.start(asks)
    driver.start(waits)
    restored = load(dump(driver.state), empty_state())
    assert restored == driver.state
    assert list(restored.approvals) == list(driver.state.approvals)


def test_a_run_that_asks_is_kept_as_bytes() -> None:
    driver = Driver(asks)
    state = driver.state.runs[driver.start(asks)]
    again = unpack(pack(state))
    assert again == state
    assert again.approvals == {ASK}


def test_code_that_asks_no_more_does_not_fit_its_log() -> None:
    @workflow(name="waits")
    async def changed(run: Run, _: Any) -> str:
        await run.sleep("1h")
        return "slept"

    driver = Driver(waits)
    run = driver.start(waits)
    driver.workflows["waits"] = changed
    driver.crash()
    (parked,) = driver.parkings
    assert (parked.run, parked.step, parked.expected) == (run, ASK, f"an approval at {ASK}")
    assert parked.found == "a timer at /1/sleep"


def test_changed_code_may_ask_others() -> None:
    @workflow(name="waits")
    async def changed(run: Run, _: Any) -> str:
        return (await run.approval(title="Now?", roles=["boss"])).decision

    driver = Driver(waits)
    run = driver.start(waits)
    asked_at_ms = driver.now_ms
    driver.workflows["waits"] = changed
    driver.now_ms += 1_000
    driver.crash()
    (request,) = driver.state.approvals.values()
    assert (request.title, request.roles, request.requested_at_ms) == ("Now?", ("boss",), asked_at_ms)
    driver.approve(run, ASK)
    assert driver.last.without_effect
    driver.approve(run, ASK, roles=("boss",))
    assert driver.result(run) == "approved"


def test_a_cancel_that_comes_first_leaves_nothing_to_decide() -> None:
    driver = Driver(waits)
    driver.auto = False
    run = driver.start(waits)
    driver.read()
    driver.command(Cancel(run=run))
    driver.read()
    driver.approve(run, ASK)
    driver.read()
    assert driver.ended(run).status == "cancelled"


# --- retries ---------------------------------------------------------------------------------------------------------


@workflow()
async def asks_then_works(run: Run, _: Any) -> list[Any]:
    said = await run.approval(title="Pay?", timeout="1h", roles=["boss"])
    if not said.approved:
        raise ValueError(said.decision)
    return [said.by, said.note, said.at.isoformat(), await run.call(work, 1)]


def test_a_retry_has_the_decision_that_was_made() -> None:
    driver = Driver(asks_then_works)
    run = driver.start(asks_then_works)
    driver.now_ms += 60_000
    driver.approve(run, ASK, by="ann", note="fine", roles=("boss",))
    driver.fail(run, "/2/work")
    decided = datetime.fromtimestamp(driver.now_ms / 1000, UTC).isoformat()
    driver.now_ms += 10 * HOUR_MS
    new = driver.retry(run)
    assert driver.open(new) == ["/2/work"]
    assert driver.state.approvals == {}
    driver.fail(new, "/2/work")
    newest = driver.retry(new)
    driver.restart()
    driver.succeed(newest, "/2/work", 7)
    assert driver.result(newest) == ["ann", "fine", decided, 7]


def test_a_retry_of_a_run_that_was_rejected_is_rejected() -> None:
    driver = Driver(asks_then_works)
    run = driver.start(asks_then_works)
    driver.approve(run, ASK, Verdict.REJECTED, roles=("boss",))
    again = driver.retry(run)
    assert driver.ended(again).message == "rejected"


def test_a_retry_from_the_approval_on_asks_anew() -> None:
    driver = Driver(asks_then_works)
    run = driver.start(asks_then_works)
    driver.approve(run, ASK, Verdict.REJECTED, roles=("boss",))
    new = driver.retry(run, ASK)
    assert driver.open(new) == [ASK]
    driver.approve(new, ASK, roles=("boss",))
    assert driver.open(new) == ["/2/work"]


@pytest.mark.parametrize("from_step", ["", ASK])
def test_what_expired_is_asked_anew(from_step: str) -> None:
    driver = Driver(asks_then_works)
    run = driver.start(asks_then_works)
    driver.fire(run, ASK)
    assert driver.ended(run).message == "expired"
    new = driver.retry(run, from_step)
    assert driver.open(new) == [ASK]
    (request,) = driver.state.approvals.values()
    assert request.due_at_ms == driver.now_ms + HOUR_MS


def test_a_decision_is_not_copied_where_others_are_asked_now() -> None:
    @workflow(name="asks_then_works")
    async def mended(run: Run, _: Any) -> str:
        return (await run.approval(roles=["owner"])).decision

    driver = Driver(asks_then_works)
    run = driver.start(asks_then_works)
    driver.approve(run, ASK, roles=("boss",))
    driver.fail(run, "/2/work")
    driver.workflows["asks_then_works"] = mended
    new = driver.retry(run)
    assert driver.open(new) == [ASK]


# --- what may be asked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"roles": "boss"}, TypeError),
        ({"roles": [""]}, ValueError),
        ({"roles": [5]}, TypeError),
        ({"roles": ["r" * 201]}, LimitExceeded),
        ({"roles": ["r"] * 101}, LimitExceeded),
        ({"title": "t" * 9_000}, LimitExceeded),
        ({"title": None}, TypeError),
        ({"title": "\ud800"}, ValueError),
        ({"timeout": 5}, Exception),
        ({"timeout": "0s"}, Exception),
    ],
)
def test_what_cannot_be_asked_fails_where_it_is_written(arguments: dict[str, Any], error: type[Exception]) -> None:
    caught: list[BaseException] = []

    @workflow()
    async def body(run: Run, _: Any) -> None:
        with pytest.raises(error) as info:
            run.approval(**arguments)
        caught.append(info.value)

    driver = Driver(body)
    driver.result(driver.start(body))
    assert caught
    assert driver.state.approvals == {}
