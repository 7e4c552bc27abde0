"""Dead letters of the app `shop` on an embedded log: found, redriven and resolved, with deaths in between."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from headrace.service.letters import letters as letters_module
from headrace.service.letters import redrive as redrive_module
from headrace.service.letters.book import LetterState
from headrace.service.letters.letters import Letters
from headrace.service.letters.redrive import By, Progress, redrive_many, redrive_one
from headrace.service.letters.resolve import Resolved, resolve
from headrace.service.letters.view import LetterFilter
from headrace.service.names import Names
from headrace.service.request_error import Conflict, NotFound
from headrace.topics.dead_letter import Stage, dead_letter
from headrace.topics.letter_mark import LetterMark, MarkKind, mark_record
from headrace.topics.log import AppendRefused, LogRecord, LogUnavailable, NewRecord, TopicMissing, TopicPartition
from tests.service.fault_log import Fault, FaultLog
from tests.service.shell import Place, place_at

ME = By("me", "as a test")
IN, OUTPUTS = TopicPartition("in.dlq", 0), TopicPartition("shop.dlq", 0)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path, sources=2) as place:
        yield place


def desk(place: Place, log: FaultLog | None = None) -> Letters:
    """As another process would make it."""
    return Letters(log or FaultLog(place.view), Names("shop"))


def wanted(*states: LetterState, **more: Any) -> LetterFilter:
    return LetterFilter(app="shop", **{"states": frozenset(states or LetterState), **more})


def original(n: int) -> LogRecord:
    return LogRecord(100 + n, 1_000 + n, f"k{n}".encode(), json.dumps({"n": n}).encode(), (("h", b"\xff"),))


async def bury(place: Place, count: int, *, partition: int = 0, first: int = 0, **facts: Any) -> None:
    """Dead letters of records in the source topic `in`."""
    told: dict[str, Any] = {"stage": Stage.MATCH, "code": "HR3030", "error": "no", "attempts": 1, "app": "shop"} | facts
    made = [dead_letter(original(n), TopicPartition("in", partition), **told) for n in range(first, first + count)]
    await place.publish("in.dlq", *made, partition=partition)


async def bury_output(place: Place, *, topic: str = "out", key: bytes | None = b"k") -> None:
    record = NewRecord(b'{"done": true}', key=key, headers=(("ce_id", b"run/1"),))
    letter = dead_letter(
        record, TopicPartition(topic, 0), stage=Stage.EMIT, code="HR5003", error="too large", attempts=3, app="shop"
    )
    await place.publish("shop.dlq", letter)


async def redriven(letters: Letters, states: LetterFilter | None = None, **options: Any) -> Progress:
    selected = await letters.selected(states or wanted(LetterState.OPEN, LetterState.REDRIVING))
    async with aclosing(redrive_many(letters, selected, ME, **options)) as steps:
        return [each async for each in steps][-1]


async def resolved(letters: Letters, *ids: str) -> Resolved:
    selected: dict[TopicPartition, list[int]] = {}
    for id_ in ids:
        found = await letters.one(id_)
        selected.setdefault(found.at, []).append(found.record.offset)
    async with aclosing(resolve(letters, selected, ME)) as steps:
        return [each async for each in steps][-1]


async def states(place: Place) -> dict[str, str]:
    """Of all letters, as a new process sees them."""
    return {each.id: each.state.value for each in await desk(place).newest(wanted())}


async def open_count(place: Place, topic: str = "in.dlq") -> int:
    letters = desk(place)
    book = await letters.book()
    places = [TopicPartition(topic, number) for number in range(await place.view.partitions(topic))]
    spans = await place.view.offsets(places)
    return sum(book.open_in(at, span) for at, span in spans.items())


# --- what there is ----------------------------------------------------------------------------------------------------


async def test_letters_are_listed_newest_first_over_topics_and_partitions(place: Place) -> None:
    await bury(place, 2)
    await bury(place, 1, partition=1)
    await bury_output(place)
    await bury(place, 1, first=7)
    await place.publish("in.dlq", NewRecord(b"somebody else's"))
    found = await desk(place).newest(wanted())
    ids = [each.id for each in found]  # of those that came in one millisecond the order is any, but within a partition
    assert sorted(ids) == ["in.dlq/0/0", "in.dlq/0/1", "in.dlq/0/2", "in.dlq/1/0", "shop.dlq/0/0"]
    assert [each.at for each in found] == sorted((each.at for each in found), reverse=True)
    assert [id_ for id_ in ids if id_.startswith("in.dlq/0")] == ["in.dlq/0/2", "in.dlq/0/1", "in.dlq/0/0"]
    assert await desk(place).newest(wanted(), 2) == found[:2]
    newest, output = (next(each for each in found if each.id == id_) for id_ in ("in.dlq/0/2", "shop.dlq/0/0"))
    assert (newest.source, newest.to, newest.key, newest.attempts, newest.state) == ("in/0/107", "in", "k7", 1, "open")
    assert (output.source, output.to, output.stage) == (None, "out", Stage.EMIT)


async def test_a_long_topic_is_read_backwards(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters_module, "_CHUNK", 4)
    await bury(place, 50, workflow="order")
    await bury(place, 6, first=50)
    found = await desk(place).newest(wanted(workflow="order"), 3)
    assert [each.offset for each in found] == [49, 48, 47]
    assert [each.offset for each in await desk(place).newest(wanted(), 0)] == list(range(55, -1, -1))


async def test_filters(place: Place) -> None:
    await bury(place, 1, stage=Stage.DECODE, code="HR3006")
    await bury(place, 1, workflow="order")
    await bury(place, 1, app="billing")
    await bury_output(place)

    async def ids(**more: Any) -> list[str]:
        return [each.id for each in await desk(place).newest(wanted(**more))]

    assert sorted(await ids()) == ["in.dlq/0/0", "in.dlq/0/1", "shop.dlq/0/0"], "that of another app is not ours"
    assert await ids(stage="decode") == ["in.dlq/0/0"]
    assert await ids(code="HR3030") == ["in.dlq/0/1"]
    assert await ids(workflow="order") == ["in.dlq/0/1"]
    assert await ids(topic="in") == await ids(topic="in.dlq") == ["in.dlq/0/1", "in.dlq/0/0"]
    assert await ids(since_ms=10**15) == []


async def test_one_is_shown_with_all_that_is_known(place: Place) -> None:
    await bury(place, 2)
    found = await desk(place).get("in.dlq/0/1")
    assert (found.value, found.value_base64, found.headers) == ('{"n": 1}', None, (("h", "\ufffd"),))
    for missing in ("in.dlq/0/2", "in.dlq/7/0", "in/0/0", "in.dlq/0", "nonsense", "a/b/c"):
        with pytest.raises(NotFound, match="There is no dead letter"):
            await desk(place).get(missing)


async def test_counts(place: Place) -> None:
    await bury(place, 3, workflow="order")
    await bury(place, 1, stage=Stage.DECODE, code="HR3006")
    await redrive_one(desk(place), "in.dlq/0/0", ME)
    await resolved(desk(place), "in.dlq/0/1")
    found = {
        (each.stage, each.code): (each.open, each.redriven, each.resolved)
        for each in await desk(place).counts(wanted())
    }
    assert found == {("match", "HR3030"): (1, 1, 1), ("decode", "HR3006"): (1, 0, 0)}


# --- redriven ---------------------------------------------------------------------------------------------------------


async def test_the_original_is_sent_to_its_partition(place: Place) -> None:
    await bury(place, 1, partition=1)
    done = await redrive_one(desk(place), "in.dlq/1/0", ME)
    assert (done.to, done.count) == ("in/1/0", 1)
    (record,) = await place.records("in", 1)
    assert (record.key, record.value) == (original(0).key, original(0).value)
    assert record.headers == (
        ("h", b"\xff"),
        ("headrace-redrive", b"1"),
        ("headrace-redrive-of", b"in.dlq/1/0"),
        ("headrace-redrive-app", b"shop"),
    )
    (letter,) = await desk(place).newest(wanted())
    assert (letter.state, letter.redrives, letter.handled_by, letter.note) == ("redriven", 1, "me", "as a test")


async def test_a_second_redrive_is_a_conflict_unless_it_is_meant(place: Place) -> None:
    await bury(place, 1)
    await redrive_one(desk(place), "in.dlq/0/0", ME)
    with pytest.raises(Conflict, match="was redriven by me"):
        await redrive_one(desk(place), "in.dlq/0/0", ME)
    assert (await redrive_one(desk(place), "in.dlq/0/0", ME, again=True)).count == 2
    await resolved(desk(place), "in.dlq/0/0")
    assert len(await place.records("in")) == 2


async def test_one_that_failed_again_counts_on(place: Place) -> None:
    await bury(place, 1)
    await redrive_one(desk(place), "in.dlq/0/0", ME)
    (copy,) = await place.records("in", 0)
    again = dead_letter(copy, TopicPartition("in", 0), stage=Stage.MATCH, code="HR3030", error="no", attempts=2)
    await place.publish("in.dlq", again)
    assert (await redrive_one(desk(place), "in.dlq/0/1", ME)).count == 2
    copies = await place.records("in", 0)
    assert [name for name, _ in copies[1].headers].count("headrace-redrive-of") == 1


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DONE, Fault.AWAY])
async def test_what_nobody_knows_about_is_sent_once_more_as_the_same(
    place: Place, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive_module, "_WAIT_S", 0)
    await bury(place, 2)
    log = FaultLog(place.view)
    log.faults["in"].append(fault)
    assert (await redriven(desk(place, log))).redriven == 2
    counts = {dict(record.headers)["headrace-redrive"] for record in await place.records("in")}
    assert counts == {b"1"}
    assert set((await states(place)).values()) == {"redriven"}


@pytest.mark.parametrize(("dies_at", "sent", "state"), [(1, 0, "open"), (2, 0, "redriving"), (3, 1, "redriving")])
async def test_a_death_between_any_two_steps_loses_nothing_and_doubles_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, dies_at: int, sent: int, state: str
) -> None:
    """Steps: it says that it begins, it sends, it says that it is done."""
    monkeypatch.setattr(redrive_module, "_WAIT_S", 0)
    await bury(place, 1)
    log = FaultLog(place.view)
    publish, steps = log.publish, 0

    async def dying(at: TopicPartition, records: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps >= dies_at:
            raise LogUnavailable("dead")
        return await publish(at, records)

    monkeypatch.setattr(log, "publish", dying)
    with pytest.raises(LogUnavailable):
        await redrive_one(desk(place, log), "in.dlq/0/0", ME)
    assert await states(place) == {"in.dlq/0/0": state}
    assert await open_count(place) == 1
    assert len(await place.records("in")) == sent
    assert (await redriven(desk(place))).redriven == 1
    assert await states(place) == {"in.dlq/0/0": "redriven"}
    assert await open_count(place) == 0
    identities = {record.headers for record in await place.records("in")}
    assert len(identities) == 1, "what was sent twice is a copy, and says so"


async def test_one_that_nobody_knows_about_for_six_days_is_not_sent_blindly(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(place, 1)
    mark = LetterMark(kind=MarkKind.REDRIVING, topic="in.dlq", partition=0, first=0, last=0, count=1, by="who died")
    await place.publish("shop.dlq", mark_record(mark))
    monkeypatch.setattr(redrive_module, "UNSURE_MS", -1)
    with pytest.raises(Conflict, match="nobody knows whether it was"):
        await redrive_one(desk(place), "in.dlq/0/0", ME)
    assert (await redrive_one(desk(place), "in.dlq/0/0", ME, again=True)).count == 2


async def test_many_go_in_order_and_no_faster_than_asked(place: Place) -> None:
    await bury(place, 5)
    await bury(place, 2, partition=1)
    letters = desk(place)
    selected = await letters.selected(wanted(LetterState.OPEN))
    async with aclosing(redrive_many(letters, selected, ME, rate=200)) as steps:
        assert [progress.done async for progress in steps] == [5, 7]
    assert [record.value for record in await place.records("in", 0)] == [original(n).value for n in range(5)]
    marks = await place.records("shop.dlq")
    assert len(marks) == 4, "neighbours share a mark"


async def test_somebody_else_may_be_faster(place: Place) -> None:
    await bury(place, 3)
    letters = desk(place)
    selected = await letters.selected(wanted(LetterState.OPEN))
    await redrive_one(desk(place), "in.dlq/0/1", ME)
    await resolved(desk(place), "in.dlq/0/0")  # and is deleted
    progress = [each async for each in redrive_many(letters, selected, ME)][-1]
    assert (progress.selected, progress.redriven, progress.skipped) == (3, 1, 2)
    assert len(await place.records("in")) == 2


async def test_a_refused_output_goes_to_its_topic_with_its_id(place: Place) -> None:
    await bury_output(place)
    await bury_output(place, key=None)
    assert (await redriven(desk(place))).redriven == 2
    assert [dict(record.headers)["ce_id"] for record in await place.records("out")] == [b"run/1", b"run/1"]
    assert await states(place) == {"shop.dlq/0/0": "redriven", "shop.dlq/0/1": "redriven"}
    assert await open_count(place, "shop.dlq") == 0, "marks are no letters"


async def test_one_that_its_topic_refuses_stays_open(place: Place) -> None:
    await bury(place, 3)
    log = FaultLog(place.view)
    log.refuses = lambda topic, record: topic == "in" and b'"n": 1' in (record.value or b"")
    done = await redriven(desk(place, log))
    assert (done.redriven, done.refused) == (2, 1)
    assert await states(place) == {"in.dlq/0/0": "redriven", "in.dlq/0/1": "open", "in.dlq/0/2": "redriven"}
    with pytest.raises(AppendRefused):
        await redrive_one(desk(place, log), "in.dlq/0/1", ME)
    assert (await redrive_one(desk(place), "in.dlq/0/1", ME)).to == "in/0/2"


async def test_what_can_never_be_sent(place: Place) -> None:
    await bury(place, 1, bytes_max=120)  # its value was not kept
    await bury(place, 1, app="billing")
    await bury_output(place, topic="shop.runs")  # a record there would stop its partition
    await bury_output(place, topic="gone")
    foreign = dead_letter(
        original(0), TopicPartition("elsewhere", 0), stage=Stage.MATCH, code="x", error="y", attempts=1
    )
    await place.publish("in.dlq", foreign)
    for id_, code in (
        ("in.dlq/0/0", "HR3303"),
        ("in.dlq/0/1", "HR3305"),
        ("shop.dlq/0/0", "HR3305"),
        ("in.dlq/0/2", "HR3305"),
    ):
        with pytest.raises(Conflict) as refused:
            await redrive_one(desk(place), id_, ME, again=True)
        assert refused.value.code == code
    with pytest.raises(TopicMissing):
        await redrive_one(desk(place), "shop.dlq/0/1", ME)
    assert await place.records("in") == []
    assert len(await place.records("shop.dlq")) == 2, "nothing was said either"


# --- resolved ---------------------------------------------------------------------------------------------------------


async def test_resolved_letters_do_not_count_and_are_deleted_up_to_the_first_open_one(place: Place) -> None:
    await bury(place, 4)
    done = await resolved(desk(place), "in.dlq/0/2", "in.dlq/0/0")
    assert (done.resolved, done.deleted, done.not_deleted) == (2, 1, "")
    assert await states(place) == {"in.dlq/0/1": "open", "in.dlq/0/2": "resolved", "in.dlq/0/3": "open"}
    assert await open_count(place) == 2
    with pytest.raises(NotFound, match="There is no dead letter"):
        await desk(place).get("in.dlq/0/0")
    await resolved(desk(place), "in.dlq/0/1")
    assert await states(place) == {"in.dlq/0/3": "open"}
    await redrive_one(desk(place), "in.dlq/0/3", ME)
    assert await open_count(place) == 0
    done = await resolved(desk(place), "in.dlq/0/3")
    assert await states(place) == {}
    assert (await place.view.offsets([IN]))[IN].start == 4


async def test_marks_are_deleted_once_their_letters_are(place: Place) -> None:
    await bury_output(place)
    await bury(place, 2)
    await redriven(desk(place))
    await resolved(desk(place), "in.dlq/0/1")
    assert (await place.view.offsets([OUTPUTS]))[OUTPUTS].start == 0, "its own letter is not resolved"
    await resolved(desk(place), "shop.dlq/0/0")
    start = (await place.view.offsets([OUTPUTS]))[OUTPUTS].start
    assert start == 1, "marks say what was done about in.dlq/0/0, which is there"
    await resolved(desk(place), "in.dlq/0/0")
    offsets = (await place.view.offsets([OUTPUTS]))[OUTPUTS]
    assert offsets.start == offsets.end
    assert await open_count(place, "shop.dlq") == 0


async def test_a_broker_that_deletes_nothing_changes_only_that(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await bury(place, 2)
    log = FaultLog(place.view)

    async def forbidden(at: TopicPartition, before: int) -> None:
        raise AppendRefused("Not allowed.")

    monkeypatch.setattr(log, "trim", forbidden)
    done = await resolved(desk(place, log), "in.dlq/0/0", "in.dlq/0/1")
    assert (done.resolved, done.not_deleted) == (2, "Not allowed.")
    assert await open_count(place) == 0


async def test_what_a_process_knows_goes_on_from_where_it_read(place: Place) -> None:
    """The book of a service lives for months, and topics are trimmed under it."""
    await bury(place, 3)
    letters = desk(place)
    assert (await letters.book()).of(IN, 0).state is LetterState.OPEN
    await redrive_one(desk(place), "in.dlq/0/0", ME)
    assert (await letters.book()).of(IN, 0).state is LetterState.REDRIVEN
    await resolved(desk(place), "in.dlq/0/0", "in.dlq/0/1")
    await letters.book()
    await redrive_one(desk(place), "in.dlq/0/2", ME)
    await resolved(desk(place), "in.dlq/0/2")
    assert (await place.view.offsets([OUTPUTS]))[OUTPUTS].start > 0
    await bury(place, 2)
    await redrive_one(desk(place), "in.dlq/0/4", ME)
    book = await letters.book()
    assert [book.of(IN, offset).state for offset in (3, 4)] == [LetterState.OPEN, LetterState.REDRIVEN]
    spans = await place.view.offsets([IN, OUTPUTS])
    assert [book.open_in(at, span) for at, span in spans.items()] == [1, 0]
