"""Handlers that misbehave: their runs fail or retry as declared, the log names them, all other runs go on."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from headrace.topics.errors import Cause
from headrace.topics.log import NewRecord
from headrace.topics.outcome import RunEnded, RunStatus
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.waiting import eventually, eventually_now


class Misdeed(NamedTuple):
    causes: list[Cause]  # of the attempts, in order
    error: str


MISDEEDS = {
    "raises": Misdeed([Cause.RAISED] * 3, "ValueError"),
    "gives_up": Misdeed([Cause.RAISED], "NonRetryable"),
    "never_returns": Misdeed([Cause.TIMED_OUT] * 2, "TimeoutError"),
    "returns_a_set": Misdeed([Cause.BAD_RESULT], ""),
    "returns_too_much": Misdeed([Cause.TOO_LARGE], ""),
    "raises_keyboard_interrupt": Misdeed([Cause.RAISED] * 2, "KeyboardInterrupt"),
    "raises_system_exit": Misdeed([Cause.RAISED] * 2, "SystemExit"),
    "raises_system_exit_in_a_thread": Misdeed([Cause.RAISED] * 2, "SystemExit"),
    "swallows_cancellation": Misdeed([Cause.TIMED_OUT], "TimeoutError"),
    "hangs_in_a_thread": Misdeed([Cause.TIMED_OUT], "TimeoutError"),
    "cancels_itself": Misdeed([Cause.CANCELLED_ITSELF] * 2, "CancelledError"),
}


@pytest.fixture(scope="module")
def den(backend: Backend, shared_station: MakeStation) -> Iterator[Station]:
    place = shared_station(backend, "rogues.py")
    place.spawn()
    yield place
    assert place.now.stop() == 0, place.now.stderr[-3000:]
    assert "Traceback" not in place.now.stderr


def same_key(type_: str, id_: str) -> NewRecord:
    """All on one run-log partition: whoever stands still there would stop the others."""
    return event(type_, {"id": id_}, key=b"k", id_=id_)


async def surrounded(place: Station, view: View, misdeed: str) -> str:
    """Good, the misdeed, good: both goods end; the run of the misdeed, ended too."""
    before, after = f"{misdeed}-before", f"{misdeed}-after"
    base = await view.publish(
        "in", [same_key(type_, id_) for type_, id_ in (("good", before), (misdeed, misdeed), ("good", after))]
    )

    async def look() -> str | None:
        ledger = await view.ledger.refresh()
        runs = [run for offset in range(base, base + 3) for run in ledger.runs_of(place.topic("in"), 0, offset)]
        ended = ledger.ended()
        return runs[1] if len(runs) == 3 and all(run in ended for run in runs) else None

    run = await eventually(look, lambda: f"{misdeed} and its neighbours ended: {place.now.stderr[-3000:]}")
    ended = view.ledger.ended()
    for offset in (base, base + 2):
        assert ended[view.ledger.run_of(place.topic("in"), 0, offset)].status is RunStatus.SUCCEEDED
    return run


@pytest.mark.parametrize("misdeed", MISDEEDS)
async def test_a_misbehaving_handler_fails_its_own_run_only_and_is_named(den: Station, misdeed: str) -> None:
    await den.now.ready()
    expected = MISDEEDS[misdeed]
    async with den.view() as view:
        run = await surrounded(den, view, misdeed)
        ended = view.ledger.ended()[run]
        assert ended.status is RunStatus.FAILED
        assert ended.failed_step == f"/1/{misdeed}"
        failures = view.ledger.failures(run)
        assert [failure.cause for failure in failures] == expected.causes
        assert [failure.number for failure in failures] == list(range(1, len(failures) + 1))
        assert failures[-1].retry_after_ms is None
        assert expected.error in failures[-1].error
        assert {failure.handler for failure in failures} == {misdeed}
        keys = {effect.key for effect in den.effects.all() if effect.run == run}
        assert len(keys) == 1
        lines = [line for line in den.now.lines("attempt.failed") if line["run_id"] == run]
        assert [line["handler"] for line in lines] == [misdeed] * len(expected.causes)


@pytest.mark.parametrize("misdeed", ["swallows_cancellation", "hangs_in_a_thread"])
async def test_a_handler_that_does_not_end_is_named_in_a_warning(den: Station, misdeed: str) -> None:
    await den.now.ready()
    async with den.view() as view:
        await surrounded(den, view, misdeed)
        await eventually_now(
            lambda: misdeed in {line["handler"] for line in den.now.lines("handler.abandoned")},
            f"a line that names {misdeed}",
        )


async def test_a_handler_that_blocks_the_loop_is_named_by_the_watchdog_and_the_others_go_on(den: Station) -> None:
    await den.now.ready()

    def named() -> list[dict[str, Any]]:
        return [line for line in den.now.lines("loop.blocked") if line.get("handler") == "blocks_the_loop"]

    async with den.view() as view, asyncio.TaskGroup() as group:
        over = group.create_task(surrounded(den, view, "blocks_the_loop"))
        blocked = await eventually_now(named, "the watchdog names it")
        assert "rogues.py" in blocked[0]["where"]
        (den.folder / "blocks_the_loop").touch()
        run = await over
        assert view.ledger.ended()[run].status is RunStatus.SUCCEEDED


async def test_a_workflow_that_catches_the_failure_goes_on_with_the_facts(den: Station) -> None:
    await den.now.ready()
    async with den.view() as view:
        run = await surrounded(den, view, "careful")
        assert view.ledger.ended()[run].status is RunStatus.SUCCEEDED
        facts = {"id": "careful", "cause": "raised", "error": "ValueError", "attempts": 3}

        async def told() -> bool:  # an output leaves after its run has ended
            return facts in [json.loads(record.value or b"") for record in await view.records("out")]

        await eventually(told, lambda: f"the facts in the results: {den.now.stderr[-2000:]}")


async def test_an_exit_code_of_zero_and_no_open_attempt_remain(den: Station) -> None:
    """The last one: whatever the handlers did, every run has ended once."""
    await den.now.ready()
    async with den.view() as view:
        ledger = await view.ledger.refresh()
        assert not ledger.open()
        assert all(isinstance(ended, RunEnded) for ended in ledger.ended().values())
