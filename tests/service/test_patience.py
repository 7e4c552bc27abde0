"""Patience with a holder that is in the group and does not release yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import EventTrigger, Run, workflow
from headrace.observability.label import TakeReason
from headrace.service import patience
from headrace.service.shared import Shared
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import OutboxProgress
from headrace.topics.run_record import KNOCK, Announce, OutcomeRecord, Release, encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, app_of, serving, until

RUNS = TopicPartition("shop.runs", 0)


@workflow(on=EventTrigger("in", "work"), name="worker")
async def worker(run: Run, order: dict[str, Any]) -> None: ...


class Holder:
    """Another member, by what it writes. Its announce is the first record."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._seq = 0

    async def announce(self) -> None:
        announce = Announce(app="shop", instance="other", member="other", nonce="n", previous_token=-1, partitions=1)
        await self._put(encode(announce))

    async def write(self) -> None:
        await self._put(encode(OutcomeRecord(token=0, seq=self._seq, body=OutboxProgress(sent=()))))
        self._seq += 1

    async def release(self) -> None:
        await self._put(encode(Release(token=0, seq=self._seq, attempts=(), grace_ms=0)))

    async def knocked(self) -> bool:
        return any(isinstance(each, Announce) and each.previous_token == KNOCK for each in await self._place.run_log())

    async def _put(self, value: bytes) -> None:
        await self._place.view.publish(RUNS, [NewRecord(value=value)])


@pytest.fixture
async def holder(place: Place, monkeypatch: pytest.MonkeyPatch) -> Holder:
    monkeypatch.setattr(Shared, "is_other_member", lambda _, member: member == "other")
    holder = Holder(place)
    await holder.announce()
    return holder


async def test_with_one_who_writes_it_waits_for_the_release(
    place: Place, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SILENT_S", 0.7)
    monkeypatch.setattr(patience, "BUSY_S", 60.0)
    loop = asyncio.get_running_loop()
    async with serving(FaultLog(place.log), app_of(worker), ready=False, partitions=1) as process:
        await place.until(holder.knocked, bool)
        ends = loop.time() + 2.0
        while loop.time() < ends:
            await holder.write()
        assert not process.observer.taken
        await holder.release()
        await until(lambda: process.observer.taken)
        assert process.observer.taken[0].reason is TakeReason.HANDOVER


@pytest.mark.parametrize("writes", [True, False])
async def test_it_ends_with_one_who_writes_nothing_and_in_the_end_with_everyone(
    place: Place, holder: Holder, monkeypatch: pytest.MonkeyPatch, *, writes: bool
) -> None:
    monkeypatch.setattr(patience, "SILENT_S", 0.2)
    monkeypatch.setattr(patience, "BUSY_S", 0.4 if writes else 600.0)
    async with serving(FaultLog(place.log), app_of(worker), ready=False, partitions=1) as process:
        while not process.observer.taken:
            if writes:
                await holder.write()
            await asyncio.sleep(0)
        assert process.observer.taken[0].reason is TakeReason.REBALANCE
