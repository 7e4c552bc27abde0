"""Code that no longer matches a run's log parks that run and shows both sides; a version that is not loaded holds it. Both come back."""

import json

from headrace.topics.outcome import ParkReason, RunStatus
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.waiting import eventually, eventually_now

KEY = b"k"  # of all records: neighbours on one run-log partition


async def at_the_gate(view: View, runs: int) -> None:
    """Wait until so many runs have done their first task."""

    async def look() -> bool:
        ledger = await view.ledger.refresh()
        return len(ledger.successes()) >= runs

    await eventually(look, "the first task of every run in the log")


async def results(view: View) -> list[str]:
    return sorted(json.loads(record.value or b"")["id"] for record in await view.records("out"))


def shown(place: Station, *words: str) -> dict[str, object]:
    code, out, err = place.command(*words, "-o", "json")
    assert code == 0, err
    return json.loads(out)


async def test_a_changed_workflow_parks_its_runs_and_resume_goes_on_after_the_fix(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "changing.py")
    await place.spawn().ready()
    async with place.view() as view:
        base = await view.publish("in", [event("changes", {"id": "a"}, key=KEY), event("stays", {"id": "b"}, key=KEY)])
        await at_the_gate(view, 2)
        changed, stayed = (view.ledger.run_of(place.topic("in"), 0, base + n) for n in range(2))
        place.now.kill()
        service = await place.spawn(env={"E2E_CHANGED": "1"}).ready()

        async def parked() -> bool:
            return changed in (await view.ledger.refresh()).parked()

        await eventually(parked, lambda: f"{changed} is parked: {service.stderr[-3000:]}")
        record = view.ledger.parked()[changed]
        assert record.reason is ParkReason.NONDETERMINISTIC
        assert "first" in record.expected
        assert "other" in record.found
        await eventually_now(lambda: service.lines("run.parked"), "it has read that back, and says so")
        [line] = service.lines("run.parked")
        assert (line["run_id"], line["reason"]) == (changed, "nondeterministic")

        (place.folder / "b").touch()

        async def neighbour_ended() -> bool:
            return stayed in (await view.ledger.refresh()).ended()

        await eventually(neighbour_ended, "the neighbour ends")
        fresh = await view.publish("in", [event("changes", {"id": "new"}, key=KEY)])
        (place.folder / "new").touch()

        async def new_ended() -> bool:
            ledger = await view.ledger.refresh()
            runs = ledger.runs_of(place.topic("in"), 0, fresh)
            return bool(runs) and runs[0] in ledger.ended()

        await eventually(new_ended, "a new run of the changed code ends")
        detail = shown(place, "run", "get", changed)
        assert "first" in str(detail["expected"])
        assert "other" in str(detail["found"])
        assert detail["status"] == "parked"

        assert service.stop() == 0
        restored = await place.spawn().ready()
        assert changed in (await view.ledger.refresh()).parked(), "until somebody says so"
        code, _, err = place.command("run", "resume", changed)
        assert code == 0, err
        (place.folder / "a").touch()
        ledger = await view.all_ended(3)
        assert {ended.status for ended in ledger.ended().values()} == {RunStatus.SUCCEEDED}
        assert await results(view) == ["a", "b", "new"]
        assert restored.lines("run.resumed")
    assert place.now.stop() == 0


async def test_a_parked_run_can_be_cancelled(backend: Backend, station: MakeStation) -> None:
    place = station(backend, "changing.py")
    await place.spawn().ready()
    async with place.view() as view:
        base = await view.publish("in", [event("changes", {"id": "a"})])
        await at_the_gate(view, 1)
        run = view.ledger.run_of(place.topic("in"), 0, base)
        place.now.kill()
        await place.spawn(env={"E2E_CHANGED": "1"}).ready()

        async def parked() -> bool:
            return run in (await view.ledger.refresh()).parked()

        await eventually(parked, "parked")
        code, _, err = place.command("run", "cancel", run)
        assert code == 0, err
        ledger = await view.all_ended(1)
        assert ledger.ended()[run].status is RunStatus.CANCELLED
    assert place.now.stop() == 0


async def test_a_run_whose_version_is_gone_is_held_and_comes_back_with_it(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "changing.py")
    await place.spawn().ready()
    async with place.view() as view:
        base = await view.publish("in", [event("versioned", {"id": "old"}, key=KEY)])
        await at_the_gate(view, 1)
        run = view.ledger.run_of(place.topic("in"), 0, base)
        place.now.kill()
        (place.folder / "old").touch()
        (place.folder / "young").touch()
        second = await place.spawn(env={"E2E_VERSION": "2"}).ready()
        young = await view.publish("in", [event("versioned", {"id": "young"}, key=KEY)])

        async def young_ended() -> bool:
            ledger = await view.ledger.refresh()
            return any(other in ledger.ended() for other in ledger.runs_of(place.topic("in"), 0, young))

        await eventually(young_ended, "a run of the new version ends")
        assert run not in view.ledger.ended()
        await eventually_now(lambda: 'workflow_definitions{status="held"} 1.0' in second.scrape(), "it is counted")
        assert second.stop() == 0
        await place.spawn(env={"E2E_VERSION": "1"}).ready()
        ledger = await view.all_ended(2)
        assert ledger.ended()[run].status is RunStatus.SUCCEEDED
        assert await results(view) == ["old", "young"]
    assert place.now.stop() == 0
