"""Answers about runs out of the run log: pages, filters, histories, counts."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest

from headrace.service.run_view.queries import HistoryPlace, RunQueries
from headrace.service.run_view.queries_log import LogQueries
from headrace.service.run_view.scan import Reading
from headrace.service.run_view.summary import RunFilter
from headrace.service.settings import Settings
from headrace.topics.identity import RunId
from headrace.topics.log import Offsets
from headrace.topics.outcome import AttemptSucceeded, RunEnded, RunStatus
from tests.service.cli.recorded import LOG, Recording

RUNS = 5

Asked = tuple[RunQueries, list[RunId]]


@pytest.fixture
async def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Asked]:
    """Five runs in two partitions; the first has ended."""
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate({"log": {"path": str(tmp_path / LOG)}})
    async with Recording() as recording:
        partitions = [await recording.partition(0), await recording.partition(1)]
        runs = [await partitions[number % 2].start(number, key=f"K-{number}") for number in range(RUNS)]
        for body in (succeeded(runs[0]), ended(runs[0])):
            await partitions[0].outcome(body)

        yield LogQueries(lambda: nullcontext(recording.log), settings), runs


def succeeded(run: str) -> AttemptSucceeded:
    result = msgspec.Raw(b"1")
    return AttemptSucceeded(
        run=run, step="/1/charge", handler="charge", number=1, result=result, started_at_ms=1, duration_ms=1
    )


def ended(run: str) -> RunEnded:
    return RunEnded(run=run, status=RunStatus.SUCCEEDED, result=msgspec.Raw(b"2"))


async def test_pages_hold_every_run_once_newest_first(asked: Asked) -> None:
    queries, runs = asked
    found: list[tuple[str, str]] = []
    wanted = RunFilter(limit=2)
    while True:
        page = await queries.runs(wanted)
        assert len(page.runs) <= 2
        found += [(run.started_at, run.id) for run in page.runs]
        if page.next is None:
            break
        wanted = msgspec.structs.replace(wanted, after=page.next)
    assert sorted(run for _, run in found) == sorted(runs)
    times = [at for at, _ in found]
    assert times == sorted(times, reverse=True)


async def test_a_page_that_holds_the_last_run_has_no_next_one(asked: Asked) -> None:
    queries, runs = asked
    assert (await queries.runs(RunFilter(limit=len(runs)))).next is None
    assert (await queries.runs(RunFilter(limit=len(runs) - 1))).next is not None


async def test_filters_hold_for_lists_and_counts(asked: Asked) -> None:
    queries, runs = asked
    done = RunFilter(statuses=frozenset({"succeeded"}), limit=10)
    assert [run.id for run in (await queries.runs(done)).runs] == [runs[0]]
    assert [(row.status, row.runs) for row in (await queries.counts(RunFilter())).counts] == [
        ("running", RUNS - 1),
        ("succeeded", 1),
    ]
    assert [row.runs for row in (await queries.counts(RunFilter(key="K-3"))).counts] == [1]


async def test_a_history_comes_in_pages_without_a_gap(asked: Asked) -> None:
    queries, runs = asked
    whole = await queries.history(runs[0])
    assert whole is not None
    assert [entry.kind for entry in whole.entries] == ["start", "attempt.succeeded", "run.ended"]
    kinds: list[str] = []
    place: HistoryPlace | None = None
    while True:
        page = await queries.history(runs[0], start=place, limit=1)
        assert page is not None
        kinds += [entry.kind for entry in page.entries]
        place = page.next
        if place is None:
            break
    assert kinds == [entry.kind for entry in whole.entries]


async def test_nothing_is_known_of_other_runs(asked: Asked) -> None:
    queries, runs = asked
    found = await queries.run(runs[0])
    assert found is not None
    assert bytes(found.result or b"") == b"2"
    for stranger in ("0." + "a" * 20, "7777." + "a" * 20, "no run"):
        assert await queries.run(stranger) is None
        assert await queries.history(stranger) is None


async def test_a_reading_folds_no_record_that_it_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends just behind the end of a reading is open in it, and not gone."""
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate({"log": {"path": str(tmp_path / LOG)}})
    async with Recording() as recording:
        partition = await recording.partition(0)
        run = await partition.start(0)
        await partition.outcome(ended(run))
        reading = Reading(partition.at, settings, partitions=8)
        offsets = (await recording.log.offsets([partition.at]))[partition.at]
        shown = [seen.offset async for seen in reading.until(recording.log, Offsets(0, offsets.end - 1))]
    assert shown == list(range(offsets.end - 1))
    assert run in reading.state.runs
