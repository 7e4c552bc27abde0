"""Waits outlive the process: sleeps, waits between attempts, the run's own timeout. Never early, never lost."""

import json

from headrace.topics.outcome import RunStatus
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.waiting import eventually, eventually_now

WAIT_MS = 3_000


async def test_waits_survive_kills_and_are_never_early(backend: Backend, station: MakeStation) -> None:
    place = station(backend, "patience.py")
    await place.spawn().ready()
    async with place.view() as view:
        types = ("sleep", "later", "late")
        base = await view.publish("in", [event(type_, {"id": type_, "ms": WAIT_MS}) for type_ in types])
        for _ in range(2):
            await eventually_now(lambda: place.effects.count() >= 4, "all three wait")  # note twice, later, for_ever

            async def armed() -> bool:
                ledger = await view.ledger.refresh()
                kinds = {type(body).__name__ for run in ledger.entries for body in ledger.bodies(run)}
                return {"TimerArmed", "AttemptFailed"} <= kinds

            await eventually(armed, "sleep and wait in the log")
            place.now.kill()
            await place.spawn().ready()
        ledger = await view.all_ended(3)
        sleeping, retrying, timing_out = (
            ledger.run_of(place.topic("in"), 0, offset) for offset in range(base, base + 3)
        )
        ended = ledger.ended()
        assert ended[sleeping].status is RunStatus.SUCCEEDED
        assert ended[retrying].status is RunStatus.SUCCEEDED
        assert ended[timing_out].status is RunStatus.TIMED_OUT

        [(fired_at_ms, fired)] = ledger.timers_fired(sleeping)
        assert fired_at_ms >= fired.due_at_ms
        slept_from = next(
            entry for entry in ledger.entries[sleeping] if type(entry.body).__name__ == "AttemptSucceeded"
        )
        assert fired.due_at_ms >= slept_from.at_ms + WAIT_MS

        [failed] = ledger.failures(retrying)
        failed_at_ms = next(entry.at_ms for entry in ledger.entries[retrying] if entry.body is failed)
        assert failed.retry_after_ms is not None
        assert failed.retry_after_ms >= WAIT_MS
        second = [effect for effect in place.effects.all() if effect.run == retrying and effect.number == 2]
        assert min(effect.at_ns for effect in second) / 1e6 >= failed_at_ms + WAIT_MS
        assert len({effect.key for effect in place.effects.all() if effect.run == retrying}) == 1

        [(timed_out_at_ms, timeout)] = ledger.timers_fired(timing_out)
        assert timed_out_at_ms >= timeout.due_at_ms >= ledger.starts[timing_out].at_ms + 2_000
        ids = [json.loads(record.value or b"")["id"] for record in await view.records("out")]
        assert sorted(set(ids)) == ["later", "sleep"]
    assert place.now.stop() == 0
