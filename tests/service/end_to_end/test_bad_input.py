"""Good, bad, good on one key and partition: the bad record becomes a dead letter as it came, both goods end in order."""

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

import pytest

from headrace.topics.dead_letter import DeadLetter, Kept
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.record_size import BATCH_FRAMING_BYTES, DEFAULT_MESSAGE_BYTES_MAX, wire_size
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.waiting import eventually

Headers = tuple[tuple[str, bytes], ...]
CE: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_source", b"/kitchen"),
    ("ce_type", b"dish"),
    ("content-type", b"application/json"),
)
STRUCTURED: Headers = (("content-type", b"application/cloudevents+json"),)
GOOD = b'{"key":"k","n":1}'


def ce(**changed: bytes | None) -> Headers:
    """Good attributes with some changed, or left out."""
    table = {**dict(CE), **{f"ce_{name}": value for name, value in changed.items()}}
    return tuple((name, value) for name, value in table.items() if value is not None)


class Bad(NamedTuple):
    code: str
    value: bytes | None
    headers: Headers = ()
    key: bytes | None = b"k"
    stage: str = "decode"


def noted(note: str) -> bytes:
    return json.dumps({"key": "k", "n": 1, "note": note}).encode()


def structured(**changed: object) -> bytes:
    event = {"specversion": "1.0", "id": "1", "source": "/kitchen", "type": "dish", "data": {"key": "k", "n": 1}}
    return json.dumps({name: value for name, value in {**event, **changed}.items() if value != "absent"}).encode()


BAD: dict[str, Bad] = {
    "null value": Bad("HR3001", None),
    "empty key": Bad("HR3002", GOOD, key=b""),
    "key is not text": Bad("HR3003", GOOD, key=b"\xff\xfe"),
    "value over the limit": Bad("HR3004", b'{"key":"k","n":1,"note":"' + b"x" * 950_000 + b'"}'),
    "headers over the limit": Bad("HR3005", GOOD, (("x", b"y" * 70_000),)),
    "invalid JSON": Bad("HR3006", b'{"key":"k","n":1'),
    "empty value": Bad("HR3006", b""),
    "not UTF-8": Bad("HR3006", b'{"key":"k\xff","n":1}'),
    "byte order mark": Bad("HR3006", b"\xef\xbb\xbf" + GOOD),
    "NaN": Bad("HR3006", b'{"key":"k","n":NaN}'),
    "1e400": Bad("HR3006", b'{"key":"k","n":1e400}'),
    "5 000 digits": Bad("HR3006", b'{"key":"k","n":' + b"9" * 5_000 + b"}"),
    "lone surrogate": Bad("HR3006", b'{"key":"k","n":1,"note":"\\ud800"}'),
    "nested 100 000 deep": Bad("HR3007", b"[" * 100_000 + b"]" * 100_000),
    "nested and never closed": Bad("HR3007", b'{"key":' * 100_000),
    "structured, nested 100 000 deep": Bad("HR3007", b'{"data":' + b"[" * 100_000, STRUCTURED),
    "no specversion": Bad("HR3010", GOOD, ce(specversion=None)),
    "no id": Bad("HR3010", GOOD, ce(id=None)),
    "no source": Bad("HR3010", GOOD, ce(source=None)),
    "no type": Bad("HR3010", GOOD, ce(type=None)),
    "empty id": Bad("HR3011", GOOD, ce(id=b"")),
    "source is no URI": Bad("HR3011", GOOD, ce(source=b"two words")),
    "time is none": Bad("HR3011", GOOD, ce(time=b"yesterday")),
    "subject is empty": Bad("HR3011", GOOD, ce(subject=b"")),
    "control characters": Bad("HR3011", GOOD, ce(subject=b"a\x00b\r\nx: y")),
    "attribute is not UTF-8": Bad("HR3011", GOOD, ce(subject=b"\xff")),
    "attribute name in capitals": Bad("HR3012", GOOD, ce(Subject=b"a")),
    "attribute twice": Bad("HR3013", GOOD, (*CE, ("ce_id", b"1"))),
    "specversion 0.3": Bad("HR3014", GOOD, ce(specversion=b"0.3")),
    "batch": Bad("HR3015", b"[]", (("content-type", b"application/cloudevents-batch+json"),)),
    "Avro event": Bad("HR3016", b"\x00", (("content-type", b"application/cloudevents+avro"),)),
    "structured, no object": Bad("HR3017", b"[1]", STRUCTURED),
    "structured, no id": Bad("HR3010", structured(id="absent"), STRUCTURED),
    "structured, id is a number": Bad("HR3011", structured(id=7), STRUCTURED),
    "structured, data twice": Bad("HR3018", structured(data_base64="e30="), STRUCTURED),
    "octets": Bad("HR3019", b"\x00\x01", (*ce()[:-1], ("content-type", b"application/octet-stream"))),
    "bad Base64": Bad("HR3020", structured(data="absent", data_base64="%%"), STRUCTURED),
    "a field is missing": Bad("HR3033", b'{"key":"k"}', stage="start"),
    "a field has another type": Bad("HR3033", b'{"key":"k","n":"one"}', stage="start"),
    "a list for an object": Bad("HR3033", b"[]", stage="start"),
    "filter raises": Bad("HR3030", noted("filter raises"), stage="match"),
    "filter exits": Bad("HR3030", noted("filter exits"), stage="match"),
    "key raises": Bad("HR3031", noted("key raises"), stage="match"),
    "key is empty": Bad("HR3032", noted("key is empty"), stage="match"),
    "key is a number": Bad("HR3032", noted("key is a number"), stage="match"),
}


@pytest.fixture(scope="module")
def kitchen(backend: Backend, shared_station: MakeStation) -> Iterator[Station]:
    place = shared_station(backend, "tasting.py")
    place.spawn()
    yield place
    assert place.now.stop() == 0
    assert "Traceback" not in place.now.stderr


def good(key: str, n: int) -> NewRecord:
    return NewRecord(key=b"k", value=json.dumps({"key": key, "n": n}).encode(), headers=CE)


async def sandwich(
    place: Station, view: View, key: str, publish_bad: Callable[[], Awaitable[object]], *, partition: int = 0
) -> None:
    """Publish, and wait until both goods have their results, in order."""
    await view.publish("in", [good(key, 1)], partition=partition)
    await publish_bad()
    await view.publish("in", [good(key, 2)], partition=partition)

    async def results() -> bool:
        found = [json.loads(record.value or b"") for record in await view.records("out") if record.key == key.encode()]
        return found == [{"n": 1}, {"n": 2}]

    await eventually(results, lambda: f"results 1, 2 of {key}: {place.now.stderr[-3000:]}")


async def letter_at(view: View, topic: str, partition: int, offset: int) -> DeadLetter:
    """The only dead letter of a record. It may be on its way while the record behind has its result already."""

    async def look() -> list[DeadLetter]:
        letters = await view.dead_letters(topic)
        return [letter for letter in letters if (letter.partition, letter.offset) == (partition, offset)]

    found = await eventually(look, f"a dead letter of {topic}/{partition}/{offset}")
    assert len(found) == 1, f"{len(found)} dead letters of {topic}/{partition}/{offset}"
    return found[0]


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_record_is_a_dead_letter_and_its_neighbours_end_in_order(kitchen: Station, case: str) -> None:
    await kitchen.now.ready()
    bad = BAD[case]
    async with kitchen.view() as view:
        place: list[int] = []

        async def publish() -> None:
            record = NewRecord(key=bad.key, value=bad.value, headers=bad.headers)
            place.append(await view.publish("in", [record]))

        await sandwich(kitchen, view, case, publish)
        letter = await letter_at(view, "in", 0, place[0])
        assert (letter.code, letter.stage) == (bad.code, bad.stage)
        assert letter.topic == kitchen.topic("in")
        assert letter.error, "a reason"
        assert "secret" not in letter.error
        assert letter.kept is Kept.ALL
        assert (letter.key, letter.value, letter.headers) == (bad.key, bad.value, bad.headers)
        assert letter.timestamp_ms is not None


async def test_what_is_strange_and_allowed_is_kept_exactly(kitchen: Station) -> None:
    await kitchen.now.ready()
    strange = {"key": "__proto__", "n": 2**70, "note": "\u202e\u0000 ünïcode \U0001f600 " + "[" * 1_000}
    async with kitchen.view() as view:
        await view.publish("in", [NewRecord(value=json.dumps(strange).encode())])

        async def result() -> object:
            return [json.loads(r.value or b"") for r in await view.records("out") if r.key == b"__proto__"]

        assert await eventually(result, "a result") == [{"n": 2**70}]


async def test_a_record_of_the_largest_size_that_the_log_takes_is_a_dead_letter_with_all_its_bytes(
    kitchen: Station,
) -> None:
    await kitchen.now.ready()
    room = DEFAULT_MESSAGE_BYTES_MAX - BATCH_FRAMING_BYTES
    frame = wire_size(NewRecord(key=b"k", value=b"", headers=CE))
    largest = NewRecord(key=b"k", value=b'"' + b"x" * (room - frame - 2) + b'"', headers=CE)
    assert wire_size(largest) == room
    async with kitchen.view() as view:
        place: list[int] = []

        async def publish() -> None:
            place.append(await view.publish("in", [largest]))

        await sandwich(kitchen, view, "largest", publish)
        letter = await letter_at(view, "in", 0, place[0])
        assert letter.code == "HR3004"
        assert (letter.value, letter.headers) == (largest.value, CE)


async def test_the_position_has_passed_everything(kitchen: Station) -> None:
    await kitchen.now.ready()
    async with kitchen.view() as view:
        at = TopicPartition(kitchen.topic("in"), 0)
        end = (await view.log.offsets([at]))[at].end

        async def passed() -> bool:
            position = await view.position("in")
            return position is not None and position.offset == end

        await eventually(passed, f"a position of {end}")


async def test_what_no_trigger_wants_is_listed_in_ranges_before_the_commit(kitchen: Station) -> None:
    await kitchen.now.ready()
    async with kitchen.view() as view:
        first: list[int] = []

        async def publish() -> None:
            unwanted = NewRecord(key=b"k", value=noted("not for us"), headers=CE)
            first.append(await view.publish("in", [unwanted] * 3, partition=1))

        await sandwich(kitchen, view, "unmatched", publish, partition=1)
        end = first[0] + 4  # behind the good one that follows

        async def passed() -> bool:
            position = await view.position("in", 1)
            return position is not None and position.offset >= end

        await eventually(passed, f"a position of {end}")
        listed = {
            offset: entry
            for entry in await view.audit()
            if entry["kind"] == "unmatched" and (entry["topic"], entry["partition"]) == (kitchen.topic("in"), 1)
            for offset in range(entry["first"], entry["last"] + 1)
        }
        assert sorted(listed) == list(range(first[0], first[0] + 3))
        assert all("filter" in entry["reason"] and "tasting" in entry["reason"] for entry in listed.values())
        assert not [letter for letter in await view.dead_letters("in") if letter.partition == 1]


async def test_offsets_that_are_delivered_again_start_no_second_run(kitchen: Station) -> None:
    """Somebody moves the committed position back while the service is down, as a reset tool does."""
    await kitchen.now.ready()
    async with kitchen.view() as view:

        async def nothing() -> None:
            return

        await sandwich(kitchen, view, "again", nothing, partition=2)
        assert kitchen.now.stop() == 0
        before = await view.ledger.refresh()
        started = set(before.starts)
        skipped = before.skipped
        position = await view.position("in", 2)
        assert position is not None
        at = TopicPartition(kitchen.topic("in"), 2)
        await view.log.commit(f"{kitchen.name}.router", {at: type(position)(0)})
        await kitchen.spawn().ready()
        await sandwich(kitchen, view, "after", nothing, partition=2)
        ledger = await view.ledger.refresh()
        new = [ledger.start(run).key for run in ledger.starts if run not in started]
        assert new == ["after", "after"]
        assert ledger.skipped >= skipped + 2, "the starts came again and were dropped"
        results = [record for record in await view.records("out") if record.key == b"again"]
        assert len(results) == 2
