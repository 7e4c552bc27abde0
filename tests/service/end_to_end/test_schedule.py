"""Schedules outlive the process: each slot starts one run or is left out by the rule, whenever the process is killed; none is early."""

import json
from collections import Counter

from headrace.service.engine.schedule_state import ScheduleState
from headrace.topics.command import Start
from headrace.topics.schedule import Slot
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.ledger import Ledger
from tests.service.end_to_end.waiting import eventually

SLOTS = 2  # that each life of the process sees the runs of
SECOND_MS = 1_000


def started(ledger: Ledger) -> dict[str, tuple[str, Slot, int]]:
    """Workflow, slot and append time of each run that a slot started, in the order of the log, schedule by schedule."""
    found = sorted(ledger.starts.items(), key=lambda item: item[1].offset)
    return {
        run: (entry.body.workflow, entry.body.slot, entry.at_ms)
        for run, entry in found
        if isinstance(entry.body, Start) and entry.body.slot is not None
    }


def slots(ledger: Ledger, workflow: str) -> list[int]:
    """Those that started a run, in the order of the log."""
    found = [slot.at_ms for name, slot, _ in started(ledger).values() if name == workflow]
    assert max(Counter(found).values(), default=0) <= 1
    assert found == sorted(found)
    return found


def state(ledger: Ledger, workflow: str) -> ScheduleState:
    (found,) = (each for each in ledger.schedules().values() if each.definition.workflow == workflow)
    return found


async def test_no_slot_is_lost_or_taken_twice_however_often_the_process_is_killed(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "ticking.py")
    await place.spawn().ready()
    async with place.view() as view:
        for life in range(1, 4):

            async def seen(wanted: int = life * SLOTS) -> bool:
                ledger = await view.ledger.refresh()
                skipped = sum(each.skipped for each in ledger.schedules().values())
                return skipped > 0 and all(len(slots(ledger, name)) >= wanted for name in ("each", "newest"))

            await eventually(seen, lambda: place.now.stderr[-2000:])
            if life < 3:
                place.now.kill()
                place.spawn()
        assert place.now.stop() == 0
        ledger = await view.ledger.refresh()
        for name in ("each", "newest", "one_at_a_time"):
            now, found = state(ledger, name), slots(ledger, name)
            first_ms = now.active_ms if name != "newest" else now.active_ms // SECOND_MS * SECOND_MS
            assert all((each - first_ms) % SECOND_MS == 0 for each in found)
            assert (now.last_ms - first_ms) // SECOND_MS == now.fired + now.missed + now.skipped
            assert now.fired == len(found)
        each = state(ledger, "each")
        assert (each.missed, slots(ledger, "each")) == (
            0,
            list(range(each.active_ms + SECOND_MS, each.last_ms + 1, SECOND_MS)),
        )
        assert state(ledger, "one_at_a_time").skipped > 0
        runs, ended = started(ledger), ledger.ended()
        assert runs.keys() == ledger.starts.keys()
        assert all(at_ms >= slot.at_ms for _, slot, at_ms in runs.values())
        for run, (name, slot, _) in runs.items():
            if name != "one_at_a_time" and run in ended:
                assert json.loads(bytes(ended[run].result)) * 1_000 == slot.at_ms
