"""What is kept of a run: hostile texts, large payloads, records nobody can have, and for how long."""

import msgspec

from headrace.service.history.retention import Retention
from headrace.service.history.rows import LEFT_OUT
from headrace.service.run_view.summary import RunFilter
from headrace.service.settings import Settings
from headrace.topics.command import Cancel, Start
from headrace.topics.identity import ClientId, run_id
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.run_record import CommandRecord, encode
from tests.service.history import shop
from tests.service.shell import Place

RUNS = TopicPartition("shop.runs", 0)
HOSTILE = "a\0b\N{SNOWMAN}'\"; DROP TABLE headrace_runs; --" + "x" * 5_000


def start(key: str, input: bytes = b"{}", name: str = "order") -> NewRecord:
    body = Start(namespace="default", workflow=name, version="1", input=msgspec.Raw(input), key=key)
    return NewRecord(value=encode(CommandRecord(id=ClientId(key), body=body)))


def id_of(key: str) -> str:
    return run_id(0, ClientId(key))


async def test_hostile_texts_and_large_payloads_hold_nothing_up(place: Place, url: str) -> None:
    large = b'"' + b"y" * 100_000 + b'"'
    records = [
        start(HOSTILE),
        start("large", large),
        start("bytes", b'"\xff\xfe"'),
        start("long", name="w" * 4_000),
        start("last"),
    ]
    await place.log.append(RUNS, records)
    settings = Settings.model_validate({"app": {"name": "shop"}, "history": {"payload": "64KiB"}})
    async with shop.fed(place, url, settings=settings) as history:
        await shop.until_read(place, history)
        runs = history.queries
        assert (await runs.counts(RunFilter())).counts
        assert len((await runs.runs(RunFilter())).runs) == 5
        found = (await runs.runs(RunFilter(key=HOSTILE.replace("\0", "\N{SYMBOL FOR NULL}")))).runs
        assert [run.id for run in found] == [id_of(HOSTILE)]
        detail = await runs.run(id_of("large"))
        assert detail is not None
        assert msgspec.json.decode(detail.input) == {LEFT_OUT: len(large)}
        page = await runs.history(id_of("large"))
        assert page is not None
        assert list(msgspec.json.decode(page.entries[0].record)) == [LEFT_OUT]
        detail = await runs.run(id_of("last"))
        assert detail is not None
        assert detail.summary.status == "running"


async def test_a_record_about_a_run_that_never_was_leaves_nothing(place: Place, url: str) -> None:
    cancel = CommandRecord(id=ClientId("c"), body=Cancel(run=id_of("nobody"), reason=""))
    await place.log.append(RUNS, [NewRecord(value=encode(cancel)), start("one"), start("one")])
    async with shop.fed(place, url) as history:
        await shop.until_read(place, history)
        assert await history.queries.history(id_of("nobody")) is None
        page = await history.queries.history(id_of("one"))
        assert page is not None
        assert [(entry.kind, entry.effect) for entry in page.entries] == [("start", "accepted"), ("start", "skipped")]
        async with history.database.asking() as connection:
            found = await connection.exec_driver_sql("SELECT count(*) FROM headrace_records")
            assert found.scalar_one() == 2


async def test_runs_that_ended_long_ago_are_deleted_with_their_records_and_open_ones_stay(
    place: Place, url: str
) -> None:
    async with shop.kept(place, url, shop.app()) as (process, history):
        await shop.publish(place, range(20))
        await shop.publish(place, range(1), "ask")
        await shop.until_ended(history, 20)
        await shop.until_still(place, process, open_=1)
        await shop.until_read(place, history)
        runs = (await history.queries.runs(RunFilter(statuses=frozenset({"succeeded"})))).runs
        retention = Retention(history.database, 0, lambda: frozenset({0, 1}))
        assert await retention.sweep(0) == 0
        assert await retention.sweep(1 << 60) == 20
        assert await shop.statuses(history) == {"running": 1}
        assert await history.queries.history(runs[0].id) is None
        async with history.database.asking() as connection:
            left = await connection.exec_driver_sql("SELECT DISTINCT run FROM headrace_records")
            assert len(left.all()) == 1
