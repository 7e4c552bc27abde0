"""Schedules as an app writes them."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.service.definitions.schedule import Schedule, shown
from headrace.service.definitions.trigger import EventTrigger
from headrace.topics.errors import DefinitionError
from headrace.topics.schedule import Misfire, Overlap, ScheduleSpec, schedule_id
from tests.service.definitions.conftest import Load, Refusal

TOP = "from dataclasses import dataclass\nfrom headrace import EventTrigger, Run, Schedule, Tick, workflow\n"


def test_a_schedule_is_a_value() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    given = Schedule(" 0  9 * * MON-FRI", timezone="Europe/Berlin", misfire="all", overlap="queue", start=start)
    assert given.spec == ScheduleSpec(
        cron="0 9 * * MON-FRI",
        timezone="Europe/Berlin",
        misfire=Misfire.ALL,
        overlap=Overlap.QUEUE,
        start_ms=1_767_225_600_000,
    )
    assert Schedule(every=timedelta(minutes=5)).spec == Schedule(every="5m").spec == ScheduleSpec(every_ms=300_000)


def test_it_is_shown_in_words() -> None:
    assert shown(Schedule(every="90m").spec) == "every 1h30m"
    assert shown(Schedule("0 9 * * *").spec) == "0 9 * * *"
    assert shown(Schedule("0 9 * * *", timezone="Asia/Kathmandu").spec) == "0 9 * * * Asia/Kathmandu"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "one of the two"),
        ({"cron": "0 9 * * *", "every": "5m"}, "one of the two"),
        ({"cron": "0 9 * *"}, "no cron expression"),
        ({"cron": "0 25 * * *"}, "no cron expression"),
        ({"cron": 9}, "no cron expression"),
        ({"every": "999ms"}, "shorter than a second"),
        ({"every": 5}, "every"),
        ({"every": "5m", "timezone": "Europe/Atlantis"}, "no time zone"),
        ({"every": "5m", "timezone": None}, "no time zone"),
        ({"every": "5m", "misfire": "never"}, "no rule"),
        ({"every": "5m", "overlap": "replace"}, "no rule"),
        ({"every": "5m", "start": datetime(2026, 1, 1)}, "no moment"),  # noqa: DTZ001 - that is what is wrong
        ({"every": "5m", "end": "2026-01-01"}, "no moment"),
        ({"every": "5m", "start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 1, tzinfo=UTC)}, "before"),
    ],
)
def test_what_is_no_schedule_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Schedule(**arguments)  # type: ignore[arg-type]
    assert caught.value.code in {"HR2016", "HR2030"}
    assert said in str(caught.value)


def test_ids_never_change() -> None:
    """They are in the log: another one would be another schedule."""
    assert schedule_id("default", "report", Schedule("0 9 * * *").spec) == "report-8945015f33"
    assert schedule_id("default", "report", Schedule(every="5m").spec) == "report-8759bd9b98"


def test_another_time_is_another_schedule_and_another_policy_is_not() -> None:
    ids = {
        schedule_id("default", "report", each.spec)
        for each in (
            Schedule("0 9 * * *"),
            Schedule("0 9 * * *", misfire="all"),
            Schedule("0 9 * * *", overlap="skip", end=datetime(2030, 1, 1, tzinfo=UTC)),
        )
    }
    assert len(ids) == 1
    others = (
        schedule_id("other", "report", Schedule("0 9 * * *").spec),
        schedule_id("default", "report", Schedule("0 9 * * *", timezone="Europe/Berlin").spec),
        schedule_id("default", "report", Schedule("0 9 * * *", start=datetime(2030, 1, 1, tzinfo=UTC)).spec),
    )
    assert len(ids | set(others)) == 4


def test_a_workflow_has_events_and_schedules(load: Load) -> None:
    app = load(
        app=TOP
        + """
@dataclass
class Order:
    schedule: str = ""

@workflow(on=[EventTrigger("orders"), Schedule(every="5m", overlap="skip"), Schedule("0 9 * * *")], timeout="1m")
async def report(run: Run, order: Order) -> None: ...

@workflow(on=Schedule("0 9 * * *"), version="1")
async def sweep(run: Run, nothing: None) -> None: ...

@workflow(on=Schedule("0 10 * * *"), version="2", name="sweep")
async def sweep_2(run: Run, tick: Tick) -> None: ...
"""
    )
    report = app.workflow("default", "report", "1")
    assert report is not None
    assert [type(each) for each in report.triggers] == [EventTrigger]
    assert app.source_topics == ("orders",)
    assert {(each.workflow, each.version, each.spec.cron, each.takes_tick) for each in app.schedules.values()} == {
        ("report", "1", None, True),
        ("report", "1", "0 9 * * *", True),
        ("sweep", "2", "0 10 * * *", True),
    }
    assert {each.timeout_ms for each in app.schedules.values()} == {60_000, None}
    sweep = app.workflow("default", "sweep", "1")
    assert sweep is not None
    assert [each.takes_tick for each in sweep.scheduled.values()] == [False]


def test_the_input_must_take_a_tick(refusal: Refusal) -> None:
    text = """
@dataclass
class Order:
    id: int

@workflow(on=Schedule(every="5m"))
async def report(run: Run, order: Order) -> None: ...
"""
    error = refusal(app=TOP + text)
    assert error.code == "HR2016"
    assert "can be no tick" in error.message
    assert "app.py:8" in error.message


def test_a_key_and_a_schedule_do_not_go_together(refusal: Refusal) -> None:
    text = """
@workflow(on=Schedule(every="5m"), key=lambda tick: tick.schedule)
async def report(run: Run, tick: Tick) -> None: ...
"""
    assert "overlap" in (refusal(app=TOP + text).do or "")


def test_one_schedule_is_given_once(refusal: Refusal) -> None:
    text = """
@workflow(on=[Schedule(every="5m"), Schedule(every="5m", misfire="all")])
async def report(run: Run, tick: Tick) -> None: ...
"""
    assert "same slots" in refusal(app=TOP + text).message
