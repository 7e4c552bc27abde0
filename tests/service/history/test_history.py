"""The history says what the run log says: while it is written, after restarts, after kills, with a database that goes away."""

import asyncio
from pathlib import Path

import pytest

from headrace.observability.label import Dependency
from headrace.service import checkpointer
from headrace.service.engine import checkpoint
from headrace.service.run_view.queries import HistoryPlace
from headrace.service.run_view.summary import RunFilter
from headrace.topics.log import TopicPartition
from tests.postgres_server import PostgresServer
from tests.service.archive import Archive, ArchivedLog
from tests.service.history import shop
from tests.service.history.truth import agrees
from tests.service.shell import Place, Recorder, place_at, serving, until

RUNS = TopicPartition("shop.runs", 0)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whenever there is something new, in many small chunks."""
    monkeypatch.setattr(checkpointer, "LOG_BYTES_MIN", 0)
    monkeypatch.setattr(checkpointer, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpointer, "SIZE_FACTOR", 0)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 3_000)
    monkeypatch.setattr(checkpoint, "_PART_BYTES", 2_000)


async def log_start(place: Place) -> int:
    return (await place.view.offsets([RUNS]))[RUNS].start


async def test_every_run_and_record_is_as_in_the_log(place: Place, url: str) -> None:
    held = asyncio.Event()
    async with shop.kept(place, url, shop.app(held)) as (process, history):
        await shop.publish(place, range(33))
        await shop.publish(place, range(100, 104), "look")
        await shop.publish(place, range(1), "ask")
        await shop.until_ended(history, 20)
        await shop.until_read(place, history)
        held.set()
        await shop.until_still(place, process, open_=1)  # who asks
        await shop.until_read(place, history)
        assert await agrees(history.queries, await shop.whole(place)) >= 37
        looks = (await history.queries.runs(RunFilter(workflow="look"))).runs
        children = [run for each in looks for run in (await history.queries.runs(RunFilter(parent=each.id))).runs]
        assert {run.workflow for run in children} == {"part"}


async def test_a_history_that_comes_late_reads_everything(place: Place, url: str) -> None:
    async with shop.kept(place, "sqlite:///" + str(place.log.path) + ".other", shop.app()) as (_, other):
        await shop.publish(place, range(20))
        await shop.until_ended(other, 20)
    async with shop.fed(place, url) as history:
        await shop.until_read(place, history)
        assert await agrees(history.queries, await shop.whole(place)) == 20


@pytest.mark.usefixtures("often")
async def test_restarts_kills_and_trims_leave_no_trace(place: Place, url: str) -> None:
    archive, app = Archive(place), shop.app()
    for life in range(4):
        log = ArchivedLog(archive)
        async with shop.kept(place, url, app, log=log, partitions=1) as (_, history):
            await shop.publish(place, range(life * 12, life * 12 + 12))
            await shop.until_ended(history, life * 12 + 3 * life)
            log.dead = life % 2 == 0  # a death: what was on its way to the database is gone
    async with shop.kept(place, url, app, log=ArchivedLog(archive), partitions=1) as (process, history):
        await shop.until_ended(history, 48)
        await until(lambda: not process.service.owners[0].state.outbox)
        await shop.until_read(place, history, 1)
        await place.until(lambda: log_start(place), lambda start: start > 100)
        assert process.observer.gaps == []
    async with shop.fed(place, url, partitions=1) as history:
        await shop.until_read(place, history, 1)
        assert await agrees(history.queries, {0: await archive.all()}) == 48


async def test_two_that_feed_the_same_do_no_harm(place: Place, url: str) -> None:
    async with shop.kept(place, url, shop.app()) as (process, history), shop.fed(place, url) as other:
        for life in range(5):
            await shop.publish(place, range(life * 8, life * 8 + 8))
            await shop.until_ended(history, life * 8 + 8)
        await shop.until_still(place, process)
        places = (history, other)
        ends = await place.view.offsets([TopicPartition("shop.runs", number) for number in range(2)])
        await until(
            lambda: all(max(each.position(at.partition) for each in places) >= end.end for at, end in ends.items())
        )
        assert await agrees(history.queries, await shop.whole(place)) == 40


@pytest.mark.usefixtures("often")
async def test_while_the_database_is_away_runs_go_on_the_log_is_kept_and_nothing_is_missing(
    place: Place, postgres: PostgresServer
) -> None:
    own = PostgresServer()
    own.start()
    try:
        archive = Archive(place)
        async with shop.kept(place, own.database(), shop.app(), log=ArchivedLog(archive), partitions=1) as (
            process,
            history,
        ):
            await shop.publish(place, range(5))
            await shop.until_ended(history, 5)
            await asyncio.to_thread(own.stop)
            await shop.publish(place, range(5, 30))
            await place.until(lambda: place.values("out"), lambda found: len({each["n"] for each in found}) == 24)
            await until(lambda: process.observer.outages)
            await until(lambda: history.lag().records > 100)
            await until(lambda: history.lag().seconds > 0)
            assert await log_start(place) <= history.floor(0)  # pyright: ignore[reportOperatorIssue]
            await until(lambda: process.service.owners[0].checkpointer.held_bytes > 0)
            await asyncio.to_thread(own.start)
            await shop.until_ended(history, 30)
            await shop.until_read(place, history, 1)
            await until(lambda: process.observer.outages_over)
            assert {each.dependency for each in process.observer.outages} == {Dependency.HISTORY}
            await until(lambda: process.service.owners[0].checkpointer.held_bytes == 0)
            assert process.observer.gaps == []
            await shop.until_still(place, process)
            await shop.until_read(place, history, 1)
            assert await agrees(history.queries, {0: await archive.all()}) == 30
    finally:
        own.remove()


@pytest.mark.usefixtures("often")
async def test_a_history_that_was_switched_off_for_a_while_shows_the_gap(place: Place, url: str) -> None:
    """It reads a little, nothing waits for it while the log goes on, and it comes back behind the log's start."""
    held = asyncio.Event()
    archive, app = Archive(place), shop.app(held)
    async with shop.kept(place, url, app, log=ArchivedLog(archive), partitions=1) as (_, history):
        await shop.publish(place, range(11))
        await shop.until_ended(history, 5)
        waiting = [run.id for run in (await history.queries.runs(RunFilter(statuses=frozenset({"running"})))).runs]
    read = (await place.view.offsets([RUNS]))[RUNS].end
    async with serving(ArchivedLog(archive), app, partitions=1) as process:  # no history: nothing waits for one
        held.set()
        await shop.publish(place, range(20, 40))
        await shop.until_still(place, process)
        await place.until(lambda: log_start(place), lambda start: start > read + 50)
    observer = Recorder()
    async with shop.kept(place, url, app, log=ArchivedLog(archive), partitions=1, observer=observer) as (_, history):
        await shop.publish(place, range(40, 45))
        await shop.until_read(place, history, 1)
        assert [(gap.partition, gap.reason) for gap in observer.gaps] == [(0, "trimmed")]
        page = await history.queries.runs(RunFilter())
        assert any("were trimmed before the history read them" in note for note in page.notes)
        for run in waiting:
            detail = await history.queries.run(run)
            assert detail is not None
            assert detail.summary.status in {"unknown", "succeeded", "compensated"}
        await shop.until_ended(history, 5)


async def test_the_log_of_another_life_is_not_mixed_in(tmp_path: Path, url: str) -> None:
    for life in range(2):
        (tmp_path / str(life)).mkdir()
        async with place_at(tmp_path / str(life)) as place, shop.kept(place, url, shop.app()) as (process, history):
            await shop.publish(place, range(6 if life else 12))
            if life:
                await until(lambda: len(process.observer.finished) == 6)
                await until(lambda: {told.code for told in process.observer.unfed} == {"HR5204"})
                assert history.unfed
            else:
                await shop.until_ended(history, 12)
                await shop.until_read(place, history)
            assert (await shop.statuses(history)).total() == 12


async def test_pages_and_filters(place: Place, url: str) -> None:
    async with shop.kept(place, url, shop.app()) as (_, history):
        await shop.publish(place, range(25))
        await shop.until_ended(history, 25)
        ask = history.queries.runs
        everything = (await ask(RunFilter())).runs
        found, wanted = [], RunFilter(limit=4)
        while True:
            page = await ask(wanted)
            found += page.runs
            if page.next is None:
                break
            wanted = RunFilter(limit=4, after=page.next)
        assert found == list(everything)
        for wanted in (
            RunFilter(statuses=frozenset({"succeeded"})),
            RunFilter(statuses=frozenset({"failed", "compensated"})),
            RunFilter(workflow="order"),
            RunFilter(workflow="default/order"),
            RunFilter(key="customer-3"),
        ):
            fits = [
                run
                for run in everything
                if (not wanted.statuses or run.status in wanted.statuses)
                and (wanted.workflow is None or run.workflow == "order")
                and (wanted.key is None or run.key == wanted.key)
            ]
            assert list((await ask(wanted)).runs) == fits
            assert fits
        assert (await ask(RunFilter(workflow="other/order"))).runs == ()
        assert (await ask(RunFilter(since_ms=4_000_000_000_000))).runs == ()
        assert await history.queries.run("0.00000000000000000000") is None
        assert await history.queries.history("no run") is None
        run = everything[0].id
        entries = (await history.queries.history(run)).entries  # pyright: ignore[reportOptionalMemberAccess]
        place_, pages = HistoryPlace(0), []
        while place_ is not None:
            part = await history.queries.history(run, start=place_, limit=2)
            assert part is not None
            pages += part.entries
            place_ = part.next
        assert [entry.offset for entry in pages] == [entry.offset for entry in entries]
