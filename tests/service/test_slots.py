"""Slots: against cronsim where it has the same rules, and the rules of clocks that are set forth and back."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from headrace.service.slots import CronRefused, Slots, checked_cron, checked_zone, to_ms
from headrace.topics.schedule import ScheduleSpec

BERLIN = "Europe/Berlin"  # 2026: forth on March 29 at 02:00, back on October 25 at 03:00
ZONES = (BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC")
YEAR = st.datetimes(datetime(2023, 12, 1), datetime(2029, 1, 1))  # noqa: DTZ001 - strategies want it so
FIELDS = st.tuples(
    st.sampled_from(("0", "30", "*/7", "5,55", "*")),
    st.sampled_from(("0", "2", "1-3", "*/2", "*")),
    st.sampled_from(("*", "29", "1,31", "L")),
    st.sampled_from(("*", "2", "3,10")),
    st.sampled_from(("*", "MON-FRI", "7", "0#1")),
)


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold))


def slots(cron: str, zone: str = "UTC") -> Slots:
    return Slots(ScheduleSpec(cron=cron, timezone=zone), 0)


def shown(found: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(each / 1000, ZoneInfo(zone)).isoformat() for each in found]


@given(FIELDS, YEAR)
def test_in_utc_slots_are_those_of_cronsim(fields: tuple[str, ...], begin: datetime) -> None:
    cron = " ".join(fields)
    begin = begin.replace(tzinfo=UTC)
    found = list(islice(slots(cron).after(to_ms(begin)), 20))
    assert found == [to_ms(each) for each in islice(CronSim(cron, begin), len(found))]
    assert len(found) == 20 or fields[2] == "29"


@given(st.sampled_from(ZONES), st.integers(0, 59), st.integers(0, 23), YEAR)
def test_a_time_of_day_is_where_cronsim_has_it(zone: str, minute: int, hour: int, begin: datetime) -> None:
    """Debian's rules, which are ours where minute and hour are numbers. cronsim may begin with a time that is over, in the hour that comes twice."""
    cron, local = f"{minute} {hour} * * *", begin.replace(tzinfo=ZoneInfo(zone))
    found = list(islice(slots(cron, zone).after(to_ms(local)), 10))
    theirs = [to_ms(each) for each in islice(CronSim(cron, local), 12)]
    assert found == [each for each in theirs if each > to_ms(local)][:10]


@given(FIELDS, st.sampled_from(ZONES), YEAR, st.integers(0, 40))
def test_slots_do_not_depend_on_where_one_begins_to_look(
    fields: tuple[str, ...], zone: str, begin: datetime, cut: int
) -> None:
    found = slots(" ".join(fields), zone)
    begin_ms = to_ms(begin.replace(tzinfo=UTC))
    all_ = list(islice(found.after(begin_ms), 41))
    assert all_ == sorted(set(all_))
    if len(all_) > cut:
        assert list(islice(found.after(all_[cut]), 40 - cut)) == all_[cut + 1 :]
        assert found.next(all_[cut] - 1) == all_[cut]


@given(FIELDS, st.sampled_from(ZONES), YEAR, st.integers(1, 30), st.integers(0, 400 * 86_400))
def test_the_newest_slots_are_the_last_of_all(
    fields: tuple[str, ...], zone: str, begin: datetime, count: int, stretch_s: int
) -> None:
    found = slots(" ".join(fields), zone)
    begin_ms = to_ms(begin.replace(tzinfo=UTC))
    until_ms = begin_ms + stretch_s * 1_000
    bounded_ms = max(begin_ms, until_ms - 20 * 86_400_000)  # counting all by hand takes long
    assert found.newest(count, bounded_ms, until_ms) == list(found.up_to(bounded_ms, until_ms))[-count:]


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 2 * * *", "0 30 2 * * *", "0 */2 * * *"])
def test_what_the_clock_leaves_out_happens_once_right_after(cron: str) -> None:
    found = list(slots(cron, BERLIN).up_to(ms("2026-03-29T01:00", BERLIN), ms("2026-03-29T03:30", BERLIN)))
    assert shown(found, BERLIN) == ["2026-03-29T03:00:00+02:00"]


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 30 2 * * *"])
def test_what_the_clock_shows_twice_happens_once_the_first_time(cron: str) -> None:
    found = slots(cron, BERLIN)
    day = list(found.up_to(ms("2026-10-25T00:00", BERLIN), ms("2026-10-26T00:00", BERLIN)))
    assert shown(day, BERLIN) == ["2026-10-25T02:30:00+02:00"]
    again = found.next(ms("2026-10-25T02:15", BERLIN, fold=1))  # looked for in the hour that comes again
    assert again is not None
    assert shown([again], BERLIN) == ["2026-10-26T02:30:00+01:00"]


def test_every_hour_is_an_hour_after_the_one_before_whatever_the_clock_shows() -> None:
    for day in ("2026-03-28T12:00", "2026-10-24T12:00"):
        found = list(islice(slots("0 * * * *", BERLIN).after(ms(day, BERLIN)), 30))
        assert {later - earlier for earlier, later in pairwise(found)} == {3_600_000}


def test_a_leap_day_has_its_slot() -> None:
    found = list(islice(slots("0 9 29 2 *", BERLIN).after(ms("2026-01-01T00:00")), 2))
    assert shown(found, BERLIN) == ["2028-02-29T09:00:00+01:00", "2032-02-29T09:00:00+01:00"]


def test_six_fields_have_seconds() -> None:
    found = list(islice(slots("*/20 0 9 * * *").after(ms("2026-01-01T08:59:59")), 4))
    assert shown(found, "UTC")[0] == "2026-01-01T09:00:00+00:00"
    assert [each - found[0] for each in found] == [0, 20_000, 40_000, 86_400_000]


@given(st.integers(1_000, 10**9), st.integers(0, 10**12), st.integers(0, 10**12))
def test_every_counts_from_the_activation(every_ms: int, active_ms: int, look_ms: int) -> None:
    found = Slots(ScheduleSpec(every_ms=every_ms), active_ms)
    first = found.next(look_ms)
    assert first is not None
    assert first > max(look_ms, active_ms)
    assert (first - active_ms) % every_ms == 0
    assert first - max(look_ms, active_ms) <= every_ms


def test_with_start_every_begins_there() -> None:
    found = Slots(ScheduleSpec(every_ms=60_000, start_ms=1_000_000, end_ms=1_150_000), 5_000)
    assert list(found.after(0)) == [1_000_000, 1_060_000, 1_120_000]
    assert Slots(ScheduleSpec(every_ms=60_000, start_ms=1_000_000), 1_030_000).next(0) == 1_060_000


def test_start_and_end_bound_a_cron_expression() -> None:
    spec = ScheduleSpec(cron="0 * * * *", start_ms=ms("2026-01-01T10:00"), end_ms=ms("2026-01-01T12:00"))
    found = list(Slots(spec, 0).after(0))
    assert found == [ms("2026-01-01T10:00"), ms("2026-01-01T11:00"), ms("2026-01-01T12:00")]


def test_years_of_every_second_cost_as_little_as_a_minute() -> None:
    until_ms = ms("2026-01-01T00:00:30")
    found = slots("* * * * * *").newest(3, until_ms - int(timedelta(days=3_000) / timedelta(milliseconds=1)), until_ms)
    assert found == [until_ms - 2_000, until_ms - 1_000, until_ms]


@pytest.mark.parametrize("text", ["", "* * * *", "61 * * * *", "0 0 30 2 *", "x * * * *", "* * * * * * *"])
def test_what_is_no_cron_expression_is_refused(text: str) -> None:
    with pytest.raises(CronRefused):
        checked_cron(text)


def test_spaces_do_not_matter() -> None:
    assert checked_cron("  0 9\t* *  MON-FRI ") == "0 9 * * MON-FRI"


@pytest.mark.parametrize("name", ["", "Europe/Atlantis", "../etc/passwd", "/etc/localtime"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        checked_zone(name)
