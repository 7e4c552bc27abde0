"""What ends the process, what no topic takes, what a workflow's body should not do: each is bounded to its own record or run."""

import json
from collections.abc import Iterator

import pytest

from headrace.topics.outcome import RunStatus
from headrace.topics.spec import TopicSpec
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.waiting import eventually, eventually_now

TRIES = 3
BODIES = {
    "exit": "SystemExit",
    "interrupt": "KeyboardInterrupt",
    "set": "",
    "large": "",
    "argument": "",
    "huge": "",
    "recursion": "RecursionError",
    "raises": "ValueError",
}


@pytest.fixture(scope="module")
def place(backend: Backend, shared_station: MakeStation) -> Iterator[Station]:
    made = shared_station(backend, "poison.py")
    made.spawn()
    yield made
    assert made.now.stop() == 0, made.now.stderr[-3000:]
    assert "Traceback" not in made.now.stderr


async def results(view: View) -> list[str]:
    """Ids of results in the order in which they first came."""
    return list(dict.fromkeys(json.loads(record.value or b"")["id"] for record in await view.records("out")))


async def test_a_record_that_ends_the_process_is_given_up_after_three_tries(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "poison.py")
    await place.spawn().ready()
    async with place.view() as view:
        deadly = event("good", {"id": "deadly"}, key=b"k")
        records = [event("good", {"id": "before"}, key=b"k"), deadly, event("good", {"id": "after"}, key=b"k")]
        base = await view.publish("in", records)
        deaths = 0
        while deaths < 6:  # a supervisor would do the same

            async def over() -> bool:
                return place.now.process.poll() is not None or "after" in await results(view)

            await eventually(over, "the process ends or the record is passed")
            if place.now.process.poll() is None:
                break
            assert place.now.process.returncode == 66
            deaths += 1
            place.spawn()
        assert 1 <= deaths <= TRIES + 1, f"{deaths} deaths"
        await view.all_ended(2)
        assert await results(view) == ["before", "after"]
        [letter] = await view.dead_letters("in")
        assert (letter.stage, letter.code, letter.offset) == ("decode", "HR3203", base + 1)
        assert letter.attempts == TRIES
        assert (letter.key, letter.value, letter.headers) == (b"k", deadly.value, deadly.headers)
    assert place.now.stop() == 0


@pytest.mark.parametrize("type_", BODIES)
async def test_a_misbehaving_body_fails_its_own_run_only(place: Station, type_: str) -> None:
    await place.now.ready()
    async with place.view() as view:
        base = await view.publish(
            "in", [event(t, {"id": f"{type_}-{n}"}, key=b"k") for n, t in enumerate(("good", type_, "good"))]
        )

        async def ended() -> list[str] | None:
            ledger = await view.ledger.refresh()
            runs = [run for n in range(3) for run in ledger.runs_of(place.topic("in"), 0, base + n)]
            return runs if len(runs) == 3 and all(run in ledger.ended() for run in runs) else None

        runs = await eventually(ended, lambda: f"all three ended: {place.now.stderr[-3000:]}")
        end = [view.ledger.ended()[run] for run in runs]
        assert [one.status for one in end] == [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.SUCCEEDED]
        assert end[1].error
        assert BODIES[type_] in end[1].error
        assert len(end[1].message) < 5_000


async def test_an_output_waits_for_its_missing_topic_and_holds_up_nobody(place: Station) -> None:
    await place.now.ready()
    async with place.view() as view:
        base = await view.publish("in", [event(t, {"id": "late"}, key=b"k") for t in ("missing", "good")], partition=1)

        async def good_ended() -> bool:
            ledger = await view.ledger.refresh()
            runs = ledger.runs_of(place.topic("in"), 1, base + 1)
            return bool(runs) and runs[0] in ledger.ended() and "late" in await results(view)

        await eventually(good_ended, "the neighbour ends")
        run = view.ledger.run_of(place.topic("in"), 1, base)
        assert view.ledger.outbox(f"{run}/") == 1
        await view.log.create([TopicSpec(name=place.topic("late"), partitions=1)])

        async def arrived() -> bool:
            ledger = await view.ledger.refresh()
            return len(await view.records("late")) == 1 and not ledger.outbox(f"{run}/")

        await eventually(arrived, lambda: f"the output arrives: {place.now.stderr[-2000:]}")
        assert (await view.ledger.refresh()).ended()[run].status is RunStatus.SUCCEEDED


async def test_an_output_that_no_topic_takes_fails_its_run(place: Station) -> None:
    await place.now.ready()
    async with place.view() as view:
        base = await view.publish("in", [event("illegal", {"id": "x"}, key=b"k")], partition=2)

        async def ended() -> bool:
            ledger = await view.ledger.refresh()
            return any(run in ledger.ended() for run in ledger.runs_of(place.topic("in"), 2, base))

        await eventually(ended, lambda: f"it ends: {place.now.stderr[-3000:]}")
        run = view.ledger.run_of(place.topic("in"), 2, base)
        assert view.ledger.ended()[run].status is RunStatus.FAILED
        assert not view.ledger.outbox(f"{run}/")
        await eventually_now(lambda: place.now.probe("readyz") == 200, "it works on")
