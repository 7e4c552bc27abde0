"""Dead letters of a process that was told too small a limit, redriven to one that was not; by the commands that people type."""

import json
from typing import Any

from headrace.topics.log import NewRecord
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.test_bad_input import CE
from tests.service.end_to_end.waiting import eventually


def dlq(place: Station, *words: str) -> Any:
    code, out, err = place.command("dlq", *words, "-o", "json")
    assert code == 0, err
    return json.loads(out)


async def test_what_was_refused_runs_when_it_is_redriven_and_then_is_dealt_with(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "tasting.py")
    strict = place.spawn(limits__payload="64B")
    await strict.ready()
    dishes = [json.dumps({"key": f"k{n}", "n": n, "note": "x" * 64}).encode() for n in range(3)]
    async with place.view() as view:
        await view.publish("in", [NewRecord(key=b"k", value=dish, headers=CE) for dish in dishes])

        async def buried() -> bool:
            return len(await view.dead_letters("in")) == 3

        await eventually(buried, lambda: strict.stderr[-2000:])
        assert strict.stop() == 0
        lenient = place.spawn()
        await lenient.ready()
        letters = dlq(place, "list", "--topic", place.topic("in"))
        assert [(letter["offset"], letter["code"], letter["state"]) for letter in letters] == [
            (offset, "HR3004", "open") for offset in (2, 1, 0)
        ]
        done = dlq(place, "redrive", letters[2]["id"])
        assert done == {"id": letters[2]["id"], "to": f"{place.topic('in')}/0/3", "count": 1}
        many = dlq(place, "redrive", "--code", "HR3004", "--yes")
        assert (many["selected"], many["redriven"]) == (2, 2)
        ledger = await view.all_ended(3)
        assert len(ledger.starts) == 3
        results = [json.loads(record.value or b"")["n"] for record in await view.records("out")]
        assert sorted(results) == [0, 1, 2]
        (counted,) = dlq(place, "stats")
        assert (counted["open"], counted["redriven"]) == (0, 3)
        resolved = dlq(place, "resolve", "--topic", place.topic("in"), "--yes")
        assert (resolved["resolved"], resolved["deleted"], resolved["not_deleted"]) == (3, 3, "")
        assert dlq(place, "list", "--state", "all") == []
        assert lenient.stop() == 0
