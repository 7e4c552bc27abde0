"""What records do to schedules: each slot takes effect once, whoever appends it."""

import msgspec

from headrace.service.engine.checkpoint import dump, load
from headrace.service.engine.instruction import Begin, Scheduled
from headrace.service.engine.run_state import Phase
from headrace.service.engine.schedule import FORGOTTEN_MS
from headrace.service.engine.schedule_state import ScheduleState
from headrace.topics.command import Cancel, OnConflict, PauseSchedule, ResumeSchedule, Start
from headrace.topics.identity import SlotId, run_id
from headrace.topics.outcome import Outcome, ScheduleSeen, ScheduleUnnamed, SlotsMissed
from headrace.topics.run_record import CommandRecord
from headrace.topics.schedule import ScheduleDefinition, ScheduleSpec, Slot
from tests.service.engine.driver import BEGAN_MS, Driver, empty_state, refold
from tests.service.engine.workflows import shop

ID, EVERY_MS = "shop-0123456789", 1_000
DEFINITION = ScheduleDefinition("default", "shop", "1", ScheduleSpec(every_ms=EVERY_MS))


def seen() -> Driver:
    """A driver whose schedule became active at `BEGAN_MS`."""
    driver = Driver(shop)
    said(driver, ScheduleSeen(ID, DEFINITION))
    return driver


def said(driver: Driver, outcome: Outcome) -> None:
    driver.propose(outcome)


def slot(driver: Driver, number: int, after: int, *, at_ms: int | None = None, **start: object) -> str:
    """Append the start of a slot at its time; the id of the run that it would open."""
    due_ms = BEGAN_MS + number * EVERY_MS
    driver.now_ms = max(driver.now_ms, due_ms) if at_ms is None else at_ms
    body = Start(
        "default",
        "shop",
        "1",
        msgspec.Raw(b"1"),
        trigger="schedule",
        slot=Slot(ID, due_ms, BEGAN_MS + after * EVERY_MS),
        **start,  # pyright: ignore[reportArgumentType]
    )
    driver.append(CommandRecord(SlotId(ID, due_ms), body))
    return run_id(0, SlotId(ID, due_ms))


def state(driver: Driver) -> ScheduleState:
    return driver.state.schedules[ID]


def told(driver: Driver) -> Scheduled:
    (instruction,) = [each for each in driver.last.instructions if isinstance(each, Scheduled)]
    return instruction


def test_it_becomes_active_when_it_is_first_seen() -> None:
    driver = seen()
    assert state(driver) == ScheduleState(definition=DEFINITION, active_ms=BEGAN_MS, last_ms=BEGAN_MS)
    driver.now_ms += 5_000
    changed = msgspec.structs.replace(DEFINITION, version="2")
    said(driver, ScheduleSeen(ID, changed))
    assert state(driver) == ScheduleState(definition=changed, active_ms=BEGAN_MS, last_ms=BEGAN_MS)


def test_a_slot_starts_a_run() -> None:
    driver = seen()
    run = slot(driver, 1, 0)
    assert driver.state.runs[run].phase is Phase.OPEN
    assert any(isinstance(each, Begin) for each in driver.last.instructions)
    assert (state(driver).fired, state(driver).last_ms, state(driver).last_run) == (1, BEGAN_MS + 1_000, run)
    assert told(driver).after == state(driver)


def test_nothing_is_kept_of_the_identities_of_slots() -> None:
    driver = seen()
    for number in range(1, 50):
        driver.succeed(slot(driver, number, number - 1), "/1/work")
    assert not driver.state.dedupe.clients
    assert not driver.state.dedupe.origins


def test_a_slot_that_another_owner_appends_late_does_not_count() -> None:
    driver = seen()
    run = slot(driver, 1, 0)
    slot(driver, 1, 0)
    assert driver.last.without_effect
    driver.succeed(run, "/1/work")
    slot(driver, 1, 0)  # nor after its run's end
    assert driver.last.without_effect
    slot(driver, 3, 1)
    slot(driver, 2, 1)  # left out by then
    assert driver.last.without_effect
    assert (state(driver).fired, state(driver).last_ms) == (2, BEGAN_MS + 3_000)
    assert told(driver).after is None


def test_a_slot_that_does_not_follow_the_newest_does_not_count() -> None:
    driver = seen()
    slot(driver, 3, 2)  # whoever wrote it knew of a second one, which the log does not have
    assert driver.last.without_effect
    assert state(driver).last_ms == BEGAN_MS


def test_no_slot_is_early_by_the_logs_clock() -> None:
    driver = seen()
    slot(driver, 1, 0, at_ms=BEGAN_MS + 990)
    assert (driver.last.without_effect, told(driver).early_ms) == (True, 10)
    slot(driver, 1, 0, at_ms=BEGAN_MS + 1_000)
    assert state(driver).fired == 1


def test_missed_slots_are_counted_once() -> None:
    driver = seen()
    driver.now_ms += 10_000
    missed = SlotsMissed(ID, after_ms=BEGAN_MS, until_ms=BEGAN_MS + 9_000, due_ms=BEGAN_MS + 10_000, count=9)
    said(driver, missed)
    said(driver, missed)
    assert (state(driver).missed, state(driver).last_ms) == (9, BEGAN_MS + 9_000)
    slot(driver, 5, 0)
    assert driver.last.without_effect


def test_what_is_missed_after_another_slot_than_the_newest_does_not_count() -> None:
    driver = seen()
    slot(driver, 1, 0)  # appended by the owner before, and read behind the new one's look
    driver.now_ms += 10_000
    said(driver, SlotsMissed(ID, after_ms=BEGAN_MS, until_ms=BEGAN_MS + 9_000, due_ms=BEGAN_MS + 10_000, count=9))
    assert driver.last.without_effect
    assert (state(driver).missed, state(driver).last_ms) == (0, BEGAN_MS + 1_000)


def test_slots_are_not_missed_before_the_one_that_comes_instead_is_due() -> None:
    driver = seen()
    said(driver, SlotsMissed(ID, after_ms=BEGAN_MS, until_ms=BEGAN_MS + 1_000, due_ms=BEGAN_MS + 2_000, count=1))
    assert (state(driver).missed, told(driver).early_ms) == (0, 2_000)


def test_a_paused_schedule_starts_nothing_and_goes_on_with_the_next_slot() -> None:
    driver = seen()
    driver.command(PauseSchedule(ID))
    slot(driver, 1, 0)
    assert driver.last.without_effect
    said(driver, SlotsMissed(ID, after_ms=BEGAN_MS, until_ms=BEGAN_MS + 1_000, due_ms=BEGAN_MS + 2_000, count=1))
    assert driver.last.without_effect
    driver.command(PauseSchedule(ID))
    assert driver.last.without_effect
    driver.now_ms = BEGAN_MS + 4_500
    driver.command(ResumeSchedule(ID))
    assert (state(driver).paused_ms, state(driver).last_ms, state(driver).missed) == (None, BEGAN_MS + 4_500, 0)
    slot(driver, 4, 0)
    assert driver.last.without_effect
    driver.command(ResumeSchedule(ID))
    assert driver.last.without_effect


def test_with_overlap_skip_a_slot_that_finds_a_run_open_starts_none() -> None:
    driver = seen()
    run = slot(driver, 1, 0, key=ID, policy=OnConflict.JOIN)
    other = slot(driver, 2, 1, key=ID, policy=OnConflict.JOIN)
    assert other not in driver.state.runs
    assert (state(driver).fired, state(driver).skipped, state(driver).last_run) == (1, 1, run)
    driver.succeed(run, "/1/work")
    third = slot(driver, 3, 2, key=ID, policy=OnConflict.JOIN)
    assert driver.state.runs[third].phase is Phase.OPEN


def test_with_overlap_queue_runs_follow_each_other() -> None:
    driver = seen()
    run = slot(driver, 1, 0, key=ID, policy=OnConflict.QUEUE)
    other = slot(driver, 2, 1, key=ID, policy=OnConflict.QUEUE)
    assert driver.state.runs[other].phase is Phase.QUEUED
    driver.succeed(run, "/1/work")
    assert driver.state.runs[other].phase is Phase.OPEN
    assert state(driver).fired == 2


def test_what_no_code_names_is_forgotten_after_a_week() -> None:
    driver = seen()
    said(driver, ScheduleUnnamed(ID))
    began_ms = driver.now_ms
    slot(driver, 1, 0)  # by an owner that has it still
    driver.now_ms = began_ms + FORGOTTEN_MS - 1
    said(driver, ScheduleUnnamed(ID))
    assert (state(driver).unnamed_ms, told(driver).early_ms) == (began_ms, 1)
    driver.now_ms += 1
    said(driver, ScheduleUnnamed(ID))
    assert ID not in driver.state.schedules
    slot(driver, 2, 1)
    assert driver.last.without_effect


def test_what_is_named_again_has_lost_no_slot() -> None:
    driver = seen()
    slot(driver, 1, 0)
    said(driver, ScheduleUnnamed(ID))
    driver.now_ms += FORGOTTEN_MS // 2
    said(driver, ScheduleSeen(ID, DEFINITION))
    assert (state(driver).unnamed_ms, state(driver).last_ms) == (None, BEGAN_MS + 1_000)
    driver.now_ms += FORGOTTEN_MS // 2
    said(driver, ScheduleUnnamed(ID))
    assert ID in driver.state.schedules


def test_a_schedule_that_comes_back_starts_no_old_slot() -> None:
    driver = seen()
    slot(driver, 1, 0)
    said(driver, ScheduleUnnamed(ID))
    driver.now_ms += FORGOTTEN_MS
    said(driver, ScheduleUnnamed(ID))
    said(driver, ScheduleSeen(ID, DEFINITION))
    assert state(driver).last_ms == driver.now_ms


def test_a_checkpoint_and_a_refold_have_it_all() -> None:
    driver = seen()
    slot(driver, 1, 0)
    driver.command(PauseSchedule(ID))
    assert refold(driver.log).schedules == driver.state.schedules
    assert load(dump(driver.state), empty_state()).schedules == driver.state.schedules


def test_a_run_of_a_slot_can_be_cancelled() -> None:
    driver = seen()
    run = slot(driver, 1, 0)
    driver.command(Cancel(run))
    assert run not in driver.state.runs
