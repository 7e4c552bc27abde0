"""A run that ends its process, in a task or when it is replayed: after a few restarts it is parked, and all others finish."""

import json

from headrace.service.engine.probation import STRIKES_MAX, TAKEOVERS
from headrace.topics.outcome import ParkReason, RunParked, RunStatus
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.waiting import eventually

NEIGHBOURS = 30


async def deaths_until(place: Station, view: View, parked: int, ended: int) -> int:
    """Start processes, as a supervisor does, until so many runs are parked and so many have ended."""
    deaths = 0

    async def over() -> bool:
        ledger = await view.ledger.refresh()
        return len(parkings(view)) == parked and len(ledger.ended()) == ended

    async def died_or_over() -> bool:
        return place.now.process.poll() is not None or await over()

    while True:
        await eventually(died_or_over, lambda: f"it dies, or the run is parked: {place.now.stderr[-3000:]}")
        if place.now.process.poll() is None:
            return deaths
        assert place.now.process.returncode in {67, 68}
        deaths += 1
        assert deaths < 30
        place.spawn()


def parkings(view: View) -> dict[str, RunParked]:
    bodies = (body for run in view.ledger.open() for body in view.ledger.bodies(run))
    return {body.run: body for body in bodies if isinstance(body, RunParked)}


async def test_runs_that_end_their_process_are_parked_and_all_others_finish(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "deadly.py")
    await place.spawn().ready()
    async with place.view() as view:
        good = [event("task", {"id": f"o{n}"}, key=b"o%d" % n) for n in range(NEIGHBOURS)]
        bad = [event(type_, {"id": "deadly"}, key=b"k") for type_ in ("task", "body")]
        await view.publish("in", [*good[:15], *bad, *good[15:]])
        deaths = await deaths_until(place, view, len(bad), NEIGHBOURS)
        assert TAKEOVERS + STRIKES_MAX <= deaths <= TAKEOVERS + STRIKES_MAX * len(bad)
        parked = parkings(view)
        assert {each.reason for each in parked.values()} == {ParkReason.POISON}
        assert len(view.ledger.with_status(RunStatus.SUCCEEDED)) == NEIGHBOURS
        code, out, err = place.command("run", "list", "--status", "parked", "-o", "json")
        assert code == 0, err
        assert {(row["id"], row["parked"]) for row in json.loads(out)} == {(run, "poison") for run in parked}
        for run in parked:
            code, _, err = place.command("run", "cancel", run, "--no-wait")
            assert code == 0, err
        deaths = await deaths_until(place, view, 0, NEIGHBOURS + len(bad))
        assert deaths <= 1, "code that ends the process ran again and again although its run was cancelled"
        assert len(view.ledger.with_status(RunStatus.CANCELLED)) == len(bad)
    assert place.now.stop() == 0
