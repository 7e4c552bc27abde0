"""kill -9 in the middle of everything a workflow can do: undos, sleeps, races, maps, queues of a key across partitions."""

import json
import random
from collections import Counter, defaultdict

import pytest

from headrace.topics.log import LogRecord
from headrace.topics.outcome import AttemptSucceeded, RunStatus
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.judge import judge
from tests.service.end_to_end.ledger import Ledger
from tests.service.end_to_end.test_kill import SEEDS
from tests.service.end_to_end.waiting import eventually_now

TRIPS, QUOTES, GROUPS, KILLS = 90, 30, 30, 5
EFFECTS_EACH = 14  # of a trip, at least: more than that need not come


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_kind_of_step_survives_kills(backend: Backend, station: MakeStation, seed: int) -> None:
    place = station(backend, "mixture.py")
    rng = random.Random(seed)
    await place.spawn().ready()
    async with place.view() as view:
        trips = [
            event("trip", {"id": f"t{n}", "n": n, "group": f"g{n % GROUPS}"}, key=b"g%d" % (n % GROUPS), id_=f"t{n}")
            for n in range(TRIPS)
        ]
        strangers = [  # the record's key is not the workflow's: these starts move on to the partition of their key
            event("trip", {"id": f"s{n}", "n": n, "group": f"x{n % GROUPS}"}, key=b"r%d" % n, id_=f"s{n}")
            for n in range(TRIPS)
        ]
        quotes = [event("quote", {"id": f"q{n}", "n": n, "group": ""}, id_=f"q{n}") for n in range(QUOTES)]
        await view.publish("in", trips, partition=0)
        await view.publish("in", strangers, partition=1)
        await view.publish("in", quotes, partition=2)
        for _ in range(KILLS):
            wanted = min(place.effects.count() + rng.randrange(30, 350), EFFECTS_EACH * 2 * TRIPS)
            await eventually_now(lambda wanted=wanted: place.effects.count() >= wanted, "work")
            place.now.kill()
            place.spawn()
        total = 2 * TRIPS + QUOTES
        ledger = await view.all_ended(total, patience_s=90)
        results = await view.records("out")
        refused = sum(n % 5 == 0 for n in range(TRIPS)) * 2
        quotes_refused = sum(n % 5 == 0 for n in range(QUOTES))
        verdict = judge(
            ledger, place.effects, results, orders=total, expected=total - QUOTES - refused + quotes_refused
        )
        print(f"{backend.kind} seed {seed}: {verdict}, {ledger.skipped} skipped")
        statuses = Counter(ended.status for ended in ledger.ended().values())
        assert statuses == {RunStatus.SUCCEEDED: total - refused, RunStatus.COMPENSATED: refused}
        _undone_once(ledger)
        _results_are_right(results)
        _in_order_of_each_key(ledger, results)
    assert place.now.stop() == 0


def _undone_once(ledger: Ledger) -> None:
    """Three bookings of each refused trip were undone, once each in the log, last finished first."""
    for run, ended in ledger.ended().items():
        done = [body.handler for body in ledger.bodies(run) if isinstance(body, AttemptSucceeded)]
        if ended.status is RunStatus.COMPENSATED:
            assert done.count("book") == done.count("unbook") == ended.undone == 3
            booked = [
                body.step
                for body in ledger.bodies(run)
                if isinstance(body, AttemptSucceeded) and body.handler == "book"
            ]
            undone = [
                body.step
                for body in ledger.bodies(run)
                if isinstance(body, AttemptSucceeded) and body.handler == "unbook"
            ]
            assert len(set(booked)) == len(set(undone)) == 3
        else:
            assert "unbook" not in done


def _results_are_right(results: list[LogRecord]) -> None:
    for record in results:
        data = json.loads(record.value or b"")
        if "parts" not in data:
            assert data["why"] == "no money"
            continue
        assert data["parts"] == [f"{what}-{data['id']}" for what in ("flight", "hotel", "car")]
        assert data["squares"] == [1, 4, 9]
        assert data["winner"] == "in time"


def _in_order_of_each_key(ledger: Ledger, results: list[LogRecord]) -> None:
    """With `queue`, first appearances of results leave in the order of the starts of their key."""
    starts: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for run, entry in ledger.starts.items():
        start = ledger.start(run)
        if start.key is not None:
            starts[start.key].append((entry.offset, json.loads(bytes(start.input))["id"]))
    left: dict[str, dict[str, None]] = defaultdict(dict)
    for record in results:
        data = json.loads(record.value or b"")
        if "parts" in data:
            left[(record.key or b"").decode()].setdefault(data["id"])
    for key, ids in left.items():
        expected = [id_ for _, id_ in sorted(starts[key]) if id_ in ids]
        assert list(ids) == expected, f"{key}: left as {list(ids)}, began as {expected}"
        if key.startswith("g"):  # the record's key is the workflow's: input order is log order
            assert expected == sorted(expected, key=lambda id_: int(id_[1:]))
