"""What people decide outlives processes: said while nobody runs, while one does, or not in time."""

import asyncio
import json
from typing import Any

from headrace.topics.outcome import ApprovalRequested, RunStatus
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.waiting import eventually

CONFLICT, NOT_ALLOWED = 4, 5


async def said(place: Station, *words: str) -> tuple[int, Any]:
    """Exit code and answer of `headrace approval`."""
    code, out, _ = await asyncio.to_thread(place.command, "approval", *words, "-o", "json")
    return code, json.loads(out) if out else None


async def test_the_first_decision_in_the_log_counts_whoever_runs(backend: Backend, station: MakeStation) -> None:
    place = station(backend, "patience.py", worker__idle_after="20ms")
    await place.spawn().ready()
    async with place.view() as view:
        await view.publish(
            "in", [event("ask", {"id": id_, "ms": ms}) for id_, ms in (("a", 0), ("b", 0), ("c", 4_000))]
        )

        async def asked() -> bool:
            ledger = await view.ledger.refresh()
            bodies = [body for run in ledger.entries for body in ledger.bodies(run)]
            return sum(isinstance(body, ApprovalRequested) for body in bodies) == 3

        await eventually(asked, "three are asked")
        place.now.kill()
        _, rows = await said(place, "list", "--status", "all")
        ids = {row["title"]: row["id"] for row in rows}
        assert (await said(place, "approve", ids["a"]))[0] == NOT_ALLOWED
        code, row = await said(place, "approve", ids["a"], "--role", "boss", "--by", "ann")
        assert (code, row["status"]) == (0, "approved")
        assert (await said(place, "reject", ids["a"], "--role", "boss", "--by", "bob"))[0] == CONFLICT
        await place.spawn().ready()
        code, row = await said(place, "reject", ids["b"], "--role", "boss", "--by", "bob")
        assert (code, row["status"]) == (0, "rejected")
        ledger = await view.all_ended(3)
        assert {ended.status for ended in ledger.ended().values()} == {RunStatus.SUCCEEDED}
        found = {str(json.loads(record.value or b"")) for record in await view.records("out")}
        wanted = (("a", "approved", "ann"), ("b", "rejected", "bob"), ("c", "expired", ""))
        assert found == {str({"id": id_, "decision": decision, "by": by}) for id_, decision, by in wanted}
        assert (await said(place, "list", "--role", "boss")) == (0, [])
        assert (await said(place, "approve", ids["c"], "--role", "boss"))[0] == CONFLICT
    assert place.now.stop() == 0
