"""What somebody changes under a service that works is told with its code; what can be mended is."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability import told_log
from headrace.service import checkpointer, source_position
from headrace.service.log_watch import LogWatch
from headrace.service.run_log_check import refuse_emptied, refuse_other_partitions
from headrace.service.topic_plan import TopicPlan, plan
from headrace.topics.errors import SettingsError
from headrace.topics.log import NewRecord, Position, TopicPartition
from headrace.topics.spec import TopicSpec
from tests.service.archive import Archive, ArchivedLog
from tests.service.shell import Place, Recorder, app_of, event, serving, until

RUNS = TopicPartition("shop.runs", 0)
IN = TopicPartition("in", 0)


class Alarms(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.changed: list[told_log.TopicChanged] = []

    def topic_changed(self, told: Any, /) -> None:
        self.changed.append(told)

    def codes(self, name: str) -> list[str]:
        """Of what was said about this topic or partition."""
        return [each.code for each in self.changed if name in each.message.replace(",", "").split()]


class AlteredLog(ArchivedLog):
    """Somebody has changed the configuration of topics."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self.changes: dict[str, dict[str, Any]] = {}

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        found = await super().describe(topics)
        return {name: msgspec.structs.replace(spec, **self.changes.get(name, {})) for name, spec in found.items()}


@handler
async def nothing() -> None:
    await asyncio.Event().wait()


@workflow(on=EventTrigger("in", "order.placed"), name="order")
async def order(run: Run, _: Any) -> None:
    await run.call(nothing)


def wanted(place_settings: Any) -> TopicPlan:
    return plan(place_settings, nodes=1, sources=["in"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"retention_ms": 86_400_000}, "HR1202"),
        ({"cleanup_policy": "compact"}, "HR1202"),
        ({"partitions": 7}, "HR1203"),
        ({"timestamp_type": "CreateTime"}, "HR1206"),
    ],
    ids=str,
)
async def test_a_changed_run_log_is_an_alarm(place: Place, change: dict[str, Any], code: str) -> None:
    log, alarms = AlteredLog(Archive(place)), Alarms()
    async with serving(log, app_of(nothing, order), observer=alarms, partitions=2, log={"partitions": 2}) as process:
        watch = LogWatch(process.shared, lambda: process.service.owners)
        topics = wanted(process.shared.settings)
        await watch.look(topics)
        assert alarms.codes("shop.runs") == []
        log.changes["shop.runs"] = change
        await watch.look(topics)
        assert alarms.codes("shop.runs") == [code]


async def test_records_deleted_before_a_checkpoint_had_them_are_an_alarm_and_a_new_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "LOG_BYTES_MIN", 1 << 30)
    archive, alarms = Archive(place), Alarms()
    log = AlteredLog(archive)
    async with serving(log, app_of(nothing, order), observer=alarms, partitions=1, log={"partitions": 1}) as process:
        await place.publish("in", *[event({"n": n}) for n in range(5)])
        await until(lambda: process.running() == 5)
        await archive.trim(RUNS, 3, place.log.trim)
        watch = LogWatch(process.shared, lambda: process.service.owners)
        await watch.look(wanted(process.shared.settings))
        assert alarms.codes("shop.runs/0") == ["HR5112"]
        await until(lambda: alarms.checkpoints)
    async with serving(ArchivedLog(archive), app_of(nothing, order), partitions=1) as process:
        assert not process.observer.stopped
        assert await archive.agrees(process.service.owners[0].state)
        assert len(process.service.owners[0].state.runs) == 5


async def test_a_start_with_other_partitions_than_the_log_was_written_for_is_refused(place: Place) -> None:
    async with serving(ArchivedLog(Archive(place)), app_of(nothing, order), partitions=2):
        at = TopicPartition("shop.runs", 1)
        await place.until(lambda: place.view.committed("shop.owners", [at]), bool)
    await refuse_other_partitions(place.log, "shop", 2)
    with pytest.raises(SettingsError) as raised:
        await refuse_other_partitions(place.log, "shop", 1)
    assert raised.value.code == "HR1203"


async def test_a_start_on_an_empty_run_log_from_which_runs_were_started_is_refused(place: Place) -> None:
    """As after it was deleted and made anew: the positions of its owners are gone with it, those of the sources are not."""
    async with serving(ArchivedLog(Archive(place)), app_of(nothing, order), partitions=1) as process:
        await place.publish("in", NewRecord(value=b"no event"))  # a dead letter proves nothing
        await place.until(lambda: place.view.committed("shop.router", [IN]), lambda found: _before(found) == 0)
        assert not _made(await place.view.committed("shop.router", [IN]))
        await place.publish("in", event({"n": 1}))
        await until(lambda: process.running() == 1)
        await place.until(lambda: place.view.committed("shop.router", [IN]), _made)
    positions = await place.view.committed("shop.router", [IN])
    await refuse_emptied(place.log, "shop", ["in"], 1)
    for app in ("new", "emptied"):
        await place.log.create([TopicSpec(name=f"{app}.runs", partitions=1)])
    await refuse_emptied(place.log, "new", ["in"], 1)
    await place.log.commit("emptied.router", positions)
    with pytest.raises(SettingsError, match=r"emptied\.runs is empty") as raised:
        await refuse_emptied(place.log, "emptied", ["in"], 1)
    assert raised.value.code == "HR1208"


def _before(found: Mapping[TopicPartition, Position]) -> int | None:
    before = source_position.of(found[IN]).before if IN in found else None
    return None if before is None else before.offset


def _made(found: Mapping[TopicPartition, Position]) -> bool:
    return IN in found and source_position.of(found[IN]).made
