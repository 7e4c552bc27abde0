"""kill -9 while runs wait for runs of other partitions, on Kafka also of other processes."""

import json
import random
from collections import Counter

from headrace.topics.command import Start
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.instance import Instance
from tests.service.end_to_end.waiting import eventually_now

ORDERS, GROUPS, KILLS = 40, 7, 3
EFFECTS_EACH = 6  # of an order, at least: more than that need not come


async def test_parents_and_children_find_each_other_through_kills(backend: Backend, station: MakeStation) -> None:
    place = station(backend, "family.py")
    rng = random.Random(7)
    processes: list[Instance] = []
    for _ in range(2 if backend.kind == "kafka" else 1):
        processes.append(place.spawn())
        await processes[-1].ready()
    async with place.view() as view:
        orders = [
            event("order", {"id": f"o{n}", "n": n, "group": f"g{n % GROUPS}"}, id_=f"o{n}") for n in range(ORDERS)
        ]
        await view.publish("in", orders)
        for _ in range(KILLS):
            wanted = min(place.effects.count() + rng.randrange(10, 60), EFFECTS_EACH * ORDERS)
            await eventually_now(lambda wanted=wanted: place.effects.count() >= wanted, "work")
            victim = rng.randrange(len(processes))
            processes[victim].kill()
            processes[victim] = place.spawn()
        ledger = await view.all_ended(6 * ORDERS, patience_s=90)
        results = [json.loads(record.value or b"") for record in await view.records("out")]
    ends = ledger.ended()
    assert Counter((ledger.start(run).workflow, end.status.value) for run, end in ends.items()) == {
        ("fulfil", "succeeded"): ORDERS,
        ("parcel", "succeeded"): 2 * ORDERS,
        ("bill", "succeeded"): ORDERS,
        ("idle", "cancelled"): ORDERS,
        ("refuse", "failed"): ORDERS,
    }
    steps = [body.parent for run in ends if isinstance(body := ledger.start(run), Start) and body.parent is not None]
    assert len({(parent.run, parent.step) for parent in steps}) == len(steps) == 5 * ORDERS
    ids = {f"o{n}" for n in range(ORDERS)}
    assert {result["id"] for result in results} == ids
    assert all(
        (result["parts"], result["why"]) == ([f"{result['id']}-1", f"{result['id']}-2"], result["id"])
        for result in results
    )
    for process in processes:
        assert process.stop() == 0
