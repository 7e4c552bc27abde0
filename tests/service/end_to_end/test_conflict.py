"""What a start does when its key has an open run: queue, reject, join, allow. The record's key is another one, so that starts move between partitions."""

import json
from collections.abc import Iterator

import pytest

from headrace.topics.log import NewRecord
from headrace.topics.outcome import RunStatus
from headrace.topics.partition_hash import partition_of
from tests.service.end_to_end.backend import PARTITIONS, Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.waiting import eventually, eventually_now

COUNT = 4


@pytest.fixture(scope="module")
def place(backend: Backend, shared_station: MakeStation) -> Iterator[Station]:
    made = shared_station(backend, "patience.py")
    made.spawn()
    yield made
    assert made.now.stop() == 0
    assert "Traceback" not in made.now.stderr


def contending(policy: str) -> list[NewRecord]:
    """One workflow key, record keys of which some lie elsewhere; `ms` numbers them."""
    return [event(policy, {"id": policy, "ms": n}, key=b"record-%d" % n, id_=f"{n}") for n in range(COUNT)]


def test_the_records_keys_lie_in_other_partitions_than_the_workflows_key() -> None:
    for policy in ("queue", "reject", "join", "allow"):
        home = partition_of(policy.encode(), PARTITIONS)
        assert {partition_of(b"record-%d" % n, PARTITIONS) for n in range(COUNT)} - {home}


async def started(view: View, place: Station, base: int, policy: str) -> list[str]:
    """The runs that the records started, once each record has shown what becomes of it."""
    await eventually_now(
        lambda: [effect for effect in place.effects.all() if effect.order == policy], f"a run of {policy} in its task"
    )

    async def passed() -> bool:
        position = await view.position("in")
        if position is None or position.offset < base + COUNT or (await view.ledger.refresh()).outbox():
            return False
        # What has left one partition may have come to another after we had read that one.
        return not (await view.ledger.refresh()).outbox()

    await eventually(passed, "all starts are where they belong")
    return [run for offset in range(base, base + COUNT) for run in view.ledger.runs_of(place.topic("in"), 0, offset)]


async def results(view: View, policy: str) -> list[int]:
    return [json.loads(r.value or b"")["ms"] for r in await view.records("out") if r.key == policy.encode()]


async def test_queue_runs_one_after_the_other_in_the_order_of_the_log(place: Station) -> None:
    await place.now.ready()
    async with place.view() as view:
        base = await view.publish("in", contending("queue"))
        runs = await started(view, place, base, "queue")
        assert len(runs) == COUNT
        assert len({run.partition(".")[0] for run in runs}) == 1, "all at home"
        begun = [effect.run for effect in place.effects.all() if effect.order == "queue"]
        assert len(begun) == 1, "the others wait"
        (place.folder / "queue").touch()
        ledger = await view.all_ended(COUNT)
        assert {ledger.ended()[run].status for run in runs} == {RunStatus.SUCCEEDED}
        phases = [(effect.run, effect.phase) for effect in place.effects.all() if effect.order == "queue"]
        assert all(phases[i][0] == phases[i + 1][0] for i in range(0, len(phases), 2)), "no two at once"
        in_log_order = sorted(runs, key=lambda run: ledger.starts[run].offset)
        assert [run for run, phase in phases if phase == "start"] == in_log_order
        assert await results(view, "queue") == [
            json.loads(bytes(ledger.start(run).input))["ms"] for run in in_log_order
        ]


async def test_records_of_one_key_queue_in_their_own_order(place: Station) -> None:
    """The record's key is the workflow's, as it mostly is: input order is log order."""
    await place.now.ready()
    (place.folder / "ordered").touch()
    async with place.view() as view:
        await view.publish("in", [event("queue", {"id": "ordered", "ms": n}, key=b"ordered") for n in range(20)])

        async def look() -> bool:
            return len(await results(view, "ordered")) >= 20

        await eventually(look, "20 results")
        assert await results(view, "ordered") == list(range(20))


async def test_reject_makes_dead_letters_of_the_others_with_their_bytes(place: Station) -> None:
    await place.now.ready()
    records = contending("reject")
    async with place.view() as view:
        base = await view.publish("in", records)
        runs = await started(view, place, base, "reject")
        letters = [letter for letter in await view.dead_letters("in") if letter.workflow == "rejects"]
        assert len(letters) == COUNT - 1
        for letter in letters:
            assert (letter.stage, letter.code) == ("start", "HR3201")
            assert letter.offset is not None
            original = records[letter.offset - base]
            assert (letter.key, letter.value, letter.headers) == (original.key, original.value, original.headers)
            assert (letter.topic, letter.partition) == (place.topic("in"), 0)
        (place.folder / "reject").touch()

        async def one_result() -> bool:
            return len(await results(view, "reject")) == 1

        await eventually(one_result, "the result of the one that ran")

        async def ended() -> bool:
            ledger = await view.ledger.refresh()
            return any(run in ledger.ended() for run in runs)

        await eventually(ended, "its end")
        later = await view.publish("in", [event("reject", {"id": "reject", "ms": 99})])

        async def another() -> bool:
            return 99 in await results(view, "reject")

        await eventually(another, "the key is free again")
        assert later > base


async def test_join_notes_the_others_on_the_open_run(place: Station) -> None:
    await place.now.ready()
    async with place.view() as view:
        base = await view.publish("in", contending("join"))
        await started(view, place, base, "join")
        (place.folder / "join").touch()

        async def one_result() -> bool:
            return len(await results(view, "join")) == 1

        await eventually(one_result, "one result for all")

        async def ended_ones() -> list[str]:
            ledger = await view.ledger.refresh()
            return [run for run in ledger.ended() if ledger.start(run).workflow == "joins"]

        ended = await eventually(ended_ones, "its end")
        assert len(ended) == 1
        code, out, _ = place.command("run", "get", ended[0], "-o", "json")
        assert code == 0
        assert json.loads(out)["joined"] == COUNT - 1
        assert not [letter for letter in await view.dead_letters("in") if letter.workflow == "joins"]


async def test_allow_runs_them_all_at_once(place: Station) -> None:
    await place.now.ready()
    async with place.view() as view:
        await view.publish("in", contending("allow"))
        await eventually_now(
            lambda: len([effect for effect in place.effects.all() if effect.order == "allow"]) == COUNT,
            "all in their task at once",
        )
        (place.folder / "allow").touch()

        async def look() -> bool:
            return sorted(await results(view, "allow")) == list(range(COUNT))

        await eventually(look, "all results")
