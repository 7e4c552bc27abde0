"""What a schedule does with slots that nobody was there for."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.service.misfire import COUNTED_MAX, LATE_MAX_MS, MISSED_MAX, Due, Fire, Miss, Wait
from headrace.service.slots import Slots
from headrace.topics.schedule import Misfire, ScheduleSpec

SECOND_MS, MINUTE_MS = 1_000, 60_000


def all_of(misfire: Misfire, spec: ScheduleSpec, last_ms: int, now_ms: int) -> tuple[list[int], int]:
    """The slots that are started, and how many are left out, until there is nothing to do."""
    due = Due(Slots(spec, 0), misfire)
    started: list[int] = []
    missed = 0
    while True:
        match due.after(last_ms, now_ms):
            case Wait(until_ms=until_ms):
                assert until_ms is None or until_ms > now_ms
                return started, missed
            case Fire(at_ms=at_ms):
                started.append(at_ms)
                last_ms = at_ms
            case Miss(until_ms=until_ms, due_ms=due_ms, count=count):
                assert last_ms < until_ms <= due_ms <= now_ms
                assert 0 < count <= COUNTED_MAX
                missed += count
                last_ms = until_ms


def every(ms: int) -> ScheduleSpec:
    return ScheduleSpec(every_ms=ms)


def test_latest_starts_the_newest_however_late() -> None:
    assert all_of(Misfire.LATEST, every(MINUTE_MS), 0, 10 * MINUTE_MS + 59_999) == ([10 * MINUTE_MS], 9)


def test_skip_starts_none_that_is_more_than_a_minute_late() -> None:
    hour_ms = 60 * MINUTE_MS
    assert all_of(Misfire.SKIP, every(hour_ms), 0, 2 * hour_ms + LATE_MAX_MS) == ([2 * hour_ms], 1)
    assert all_of(Misfire.SKIP, every(hour_ms), 0, 2 * hour_ms + LATE_MAX_MS + 1) == ([], 2)


def test_all_starts_each_of_them_in_order() -> None:
    assert all_of(Misfire.ALL, every(SECOND_MS), 0, 50_500) == ([1_000 * n for n in range(1, 51)], 0)


def test_all_has_a_bound() -> None:
    started, missed = all_of(Misfire.ALL, every(SECOND_MS), 0, 5_000 * SECOND_MS)
    assert (len(started), missed, started[-1]) == (MISSED_MAX, 4_000, 5_000 * SECOND_MS)


def test_what_comes_due_while_it_catches_up_is_started_too() -> None:
    due = Due(Slots(every(SECOND_MS), 0), Misfire.ALL)
    assert due.after(0, 2_000 * SECOND_MS) == Miss(500 * SECOND_MS, 2_000 * SECOND_MS, 500)
    assert due.after(500 * SECOND_MS, 2_100 * SECOND_MS) == Miss(1_000 * SECOND_MS, 2_000 * SECOND_MS, 500)
    assert due.after(1_000 * SECOND_MS, 2_100 * SECOND_MS) == Fire(1_001 * SECOND_MS)


def test_a_slot_is_not_due_before_its_time() -> None:
    for misfire in Misfire:
        due = Due(Slots(every(SECOND_MS), 0), misfire)
        assert due.after(0, 999) == Wait(1_000)
        assert due.after(0, 1_000) == Fire(1_000)


def test_after_the_last_slot_there_is_none() -> None:
    due = Due(Slots(ScheduleSpec(every_ms=SECOND_MS, end_ms=1_500), 0), Misfire.LATEST)
    assert due.after(1_000, 9_000) == Wait(None)


@given(st.sampled_from(Misfire), st.integers(SECOND_MS, 100_000), st.integers(0, 10**6), st.integers(0, 10**6))
def test_each_slot_is_started_or_left_out_once(misfire: Misfire, every_ms: int, last_ms: int, away_ms: int) -> None:
    slots = Slots(every(every_ms), 0)
    expected = list(slots.up_to(last_ms, last_ms + away_ms))
    started, missed = all_of(misfire, every(every_ms), last_ms, last_ms + away_ms)
    assert len(started) + missed == len(expected)
    assert started == (expected[-len(started) :] if started else [])
