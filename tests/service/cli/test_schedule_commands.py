"""`headrace schedule` on a run log whose records are known one by one: no service runs."""

import asyncio
from datetime import datetime

import pytest

from headrace.service.cli.exit_code import ExitCode
from headrace.service.schedule_start import home_of
from headrace.topics.command import PauseSchedule
from headrace.topics.identity import ClientId
from headrace.topics.outcome import ScheduleSeen, ScheduleUnnamed
from headrace.topics.run_record import CommandRecord
from headrace.topics.schedule import Overlap, ScheduleDefinition, ScheduleSpec, schedule_id
from tests.service.cli.conftest import Headrace
from tests.service.cli.recorded import RecordedPartition, Recording

SPECS = [
    ("report", ScheduleSpec(cron="0 9 * * MON-FRI", timezone="Europe/Berlin")),
    ("sweep", ScheduleSpec(every_ms=3_600_000, overlap=Overlap.SKIP)),
    ("sweep", ScheduleSpec(every_ms=90_000, end_ms=1)),
    ("old", ScheduleSpec(every_ms=60_000)),
    ("rest", ScheduleSpec(every_ms=60_000)),
]
REPORT, SWEEP, OVER, OLD, REST = (schedule_id("default", name, spec) for name, spec in SPECS)


@pytest.fixture(autouse=True)
def schedules(headrace: Headrace) -> None:
    """`old` is named by no definition any more, `rest` is paused."""

    async def record() -> None:
        homes: dict[int, RecordedPartition] = {}
        async with Recording() as recording:
            for name, spec in SPECS:
                id_ = schedule_id("default", name, spec)
                home = home_of(id_, 8)
                log = homes[home] = homes.get(home) or await recording.partition(home)
                definition = ScheduleDefinition("default", name, "1", spec, takes_tick=name != "report")
                await log.outcome(ScheduleSeen(id_, definition))
                if name == "old":
                    await log.outcome(ScheduleUnnamed(id_))
                if name == "rest":
                    await log.append(CommandRecord(ClientId("pause"), PauseSchedule(id_)))

    asyncio.run(record())


def test_the_list_has_every_schedule_with_what_comes(headrace: Headrace) -> None:
    rows = {row["id"]: row for row in headrace("schedule", "list", "-o", "json").json}
    assert {id_: row["status"] for id_, row in rows.items()} == {
        REPORT: "active",
        SWEEP: "active",
        OVER: "ended",
        OLD: "unnamed",
        REST: "paused",
    }
    report, sweep = rows[REPORT], rows[SWEEP]
    assert (report["cron"], report["timezone"], report["misfire"]) == ("0 9 * * MON-FRI", "Europe/Berlin", "latest")
    assert (report["fired"], report["missed"], report["skipped"], report["last_run"]) == (0, 0, 0, None)
    hour_s = datetime.fromisoformat(sweep["next_slot"]) - datetime.fromisoformat(sweep["active_since"])
    assert hour_s.total_seconds() == 3_600
    assert rows[REST]["next_slot"] is None
    assert rows[REST]["paused_at"] is not None


def test_the_table_says_when_in_words(headrace: Headrace) -> None:
    said = headrace("schedule", "list").out
    assert "0 9 * * MON-FRI Europe/Berlin" in said
    assert "every 1m30s" in said


def test_next_shows_slots_where_they_are_meant(headrace: Headrace) -> None:
    rows = headrace("schedule", "next", "report", "-n", "7", "-o", "json").json
    assert len(rows) == 7
    local = [datetime.fromisoformat(row["local"]) for row in rows]
    assert all((each.hour, each.minute, each.weekday() < 5) == (9, 0, True) for each in local)
    assert [each.timestamp() for each in local] == [datetime.fromisoformat(row["at"]).timestamp() for row in rows]
    assert headrace("schedule", "next", OVER, "-o", "json").json == []
    assert headrace("schedule", "next", "report", "-n", "0").code == ExitCode.USAGE


def test_a_workflow_with_several_schedules_stands_for_none_of_them(headrace: Headrace) -> None:
    answer = headrace("schedule", "pause", "sweep")
    assert answer.code == ExitCode.CONFLICT
    assert SWEEP in answer.err
    assert OVER in answer.err


def test_what_nobody_has_seen_is_not_found(headrace: Headrace) -> None:
    for verb in ("next", "trigger", "pause", "resume"):
        answer = headrace("schedule", verb, "nothing")
        assert (answer.code, answer.err.partition(" ")[0]) == (ExitCode.NOT_FOUND, "HR4121")


def test_a_pause_holds_until_it_is_ended(headrace: Headrace) -> None:
    assert headrace("schedule", "pause", "default/report", "-o", "json").json["status"] == "paused"
    assert headrace("schedule", "pause", "report").code == ExitCode.CONFLICT
    assert headrace("schedule", "resume", "report", "-o", "json").json["next_slot"] is not None
    assert headrace("schedule", "resume", "report").code == ExitCode.CONFLICT


def test_a_trigger_starts_a_run_that_a_service_will_find(headrace: Headrace) -> None:
    for name, input_ in ((REPORT, None), (REST, REST)):
        run = headrace("schedule", "trigger", name, "-o", "json").json["id"]
        detail = headrace("run", "get", run, "-o", "json").json
        assert detail["trigger"] == "manual"
        assert detail["status"] == "running"
        assert (detail["input"] or {}).get("schedule") == input_


def test_a_trigger_starts_none_beside_an_open_run_where_the_overlap_is_skip(headrace: Headrace) -> None:
    run = headrace("schedule", "trigger", SWEEP, "-o", "json").json["id"]
    answer = headrace("schedule", "trigger", SWEEP)
    assert (answer.code, run in answer.err) == (ExitCode.CONFLICT, True)


def test_what_no_workflow_has_any_more_is_not_triggered(headrace: Headrace) -> None:
    assert headrace("schedule", "trigger", "old").code == ExitCode.CONFLICT
