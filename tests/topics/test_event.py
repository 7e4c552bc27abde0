"""`Event` and its forms on the way: what the run log keeps comes back, times are what their text says."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.event import DecodedEvent, Event, EventMeta, format_time, parse_time

META = EventMeta("o-1", "/shop", "placed", "orders", 3, 17)


class Order(msgspec.Struct):
    order: str


def test_meta_is_compact_json_and_comes_back() -> None:
    raw = msgspec.json.encode(META)
    assert raw == b'{"id":"o-1","source":"/shop","type":"placed","topic":"orders","partition":3,"offset":17}'
    full = EventMeta("a", "b", "c", "d", 0, 1, "k", "s", "2026-11-21T10:45:00Z", "text/plain", "x:y", {"tenant": "t"})
    assert msgspec.json.decode(msgspec.json.encode(full), type=EventMeta) == full
    assert msgspec.json.decode(raw, type=EventMeta) == META


def test_data_stays_the_text_of_the_record_until_it_has_a_type() -> None:
    text = b'{ "order" : "o-1", "amount": 1180591620717411303424 }'
    decoded = DecodedEvent(META, msgspec.Raw(text))
    assert bytes(decoded.data) == text
    assert decoded.plain().data == {"order": "o-1", "amount": 2**70}
    typed: Event[Order] = decoded.typed(lambda data: msgspec.json.decode(data, type=Order))
    assert typed.data == Order("o-1")
    assert (typed.id, typed.topic, typed.partition, typed.offset) == ("o-1", "orders", 3, 17)


def test_each_reader_has_a_copy_of_the_data() -> None:
    decoded = DecodedEvent(META, msgspec.Raw(b'{"items":[]}'))
    decoded.plain().data["items"].append("changed by a filter")
    assert decoded.plain().data == {"items": []}


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        META.event(None).id = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_attributes_are_found_by_their_names() -> None:
    meta = EventMeta("a", "b", "c", "d", 0, 1, "k", "s", "t", "text/plain", "x:y", {"tenant": "z"})
    names = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "tenant", "specversion")
    assert [meta.attribute(name) for name in names] == ["a", "b", "c", "s", "t", "text/plain", "x:y", "z", "1.0"]
    assert META.attribute("datacontenttype") == "application/json"
    assert [META.attribute(name) for name in ("subject", "tenant", "offset", "event", "extensions")] == [None] * 5


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21T10:45:00Z", datetime(2026, 11, 21, 10, 45, tzinfo=UTC)),
        ("2026-11-21t10:45:00z", datetime(2026, 11, 21, 10, 45, tzinfo=UTC)),
        ("2026-11-21T10:45:00.1Z", datetime(2026, 11, 21, 10, 45, 0, 100_000, tzinfo=UTC)),
        ("2026-11-21T10:45:00.123456789Z", datetime(2026, 11, 21, 10, 45, 0, 123_456, tzinfo=UTC)),
        ("2026-11-21T10:45:00.9999999+01:30", datetime(2026, 11, 21, 9, 15, 0, 999_999, tzinfo=UTC)),
        ("2026-11-21T10:45:00-00:00", datetime(2026, 11, 21, 10, 45, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01T00:59:60.5+01:00", datetime(2017, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_rfc_3339_times_are_read(text: str, moment: datetime) -> None:
    assert parse_time(text) == moment


NOT_TIMES = [
    "", "now", "2026-11-21", "10:45:00Z", "2026-11-21T10:45:00", "2026-11-21 10:45:00Z", "2026-11-21T10:45Z",
    "20261121T104500Z", "2026-W47-6T10:45:00Z", "2026-325T10:45:00Z", "2026-11-21T24:00:00Z", "2026-11-21T10:60:00Z",
    "2026-11-21T10:45:61Z", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-00-10T00:00:00Z",
    "2026-11-21T10:45:00.Z", "2026-11-21T10:45:00,5Z", "2026-11-21T10:45:00+0100", "2026-11-21T10:45:00+01",
    "2026-11-21T10:45:00+24:00", "2026-11-21T10:45:00+01:60", "2026-11-21T10:45:00Z ", "2026-11-21T10:45:00ZZ",
    " 2026-11-21T10:45:00Z", "2026-11-21T10:45:00Z\n", "٢٠٢٦-11-21T10:45:00Z", "0000-01-01T00:00:00Z", "1763721900",
    "+2026-11-21T10:45:00Z", "2026-11-21T10:45:00 Z", "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-00:01",
]  # fmt: skip


@pytest.mark.parametrize("text", NOT_TIMES)
def test_what_is_not_an_rfc_3339_time_is_refused(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        parse_time(text)


@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis wants them naive
        max_value=datetime(9998, 1, 1),  # noqa: DTZ001
        timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    )
)
def test_times_come_back_from_their_text(moment: datetime) -> None:
    assert parse_time(moment.isoformat()) == moment
    assert parse_time(moment.astimezone(UTC).isoformat().replace("+00:00", "Z")) == moment


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_milliseconds_come_back_from_their_text(timestamp_ms: int) -> None:
    moment = parse_time(format_time(timestamp_ms))
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) == timestamp_ms


def test_milliseconds_are_written_in_utc() -> None:
    assert format_time(0) == "1970-01-01T00:00:00.000Z"
    assert format_time(1_763_721_900_123) == "2025-11-21T10:45:00.123Z"
    assert format_time(-1) == "1969-12-31T23:59:59.999Z"
