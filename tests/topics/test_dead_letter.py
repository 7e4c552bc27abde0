"""Dead letters keep the original byte for byte, say why in one line, and can be read back."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.dead_letter import Kept, Stage, dead_letter, dead_letter_topic, one_line, parse_dead_letter
from headrace.topics.log import LogRecord, NewRecord, TopicPartition, Unreadable

AT = TopicPartition("orders", 3)
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["ce_id", "headrace-dlq-stage", "headrace-dlq-code", "headrace-dlq-kept", "headrace-redrive"]
)
records = st.builds(
    LogRecord,
    offset=st.integers(0, 2**62),
    timestamp_ms=st.integers(-1, 2**50),
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(names, st.binary(max_size=20)), max_size=6).map(tuple),
)


def as_read(record: NewRecord, offset: int = 0) -> LogRecord:
    return LogRecord(offset, 0, record.key, record.value, record.headers)


@given(records, st.sampled_from(Stage), st.none() | st.text(min_size=1, max_size=20).filter(str.isprintable))
def test_a_dead_letter_is_the_original_with_headers_after_its_own(
    record: LogRecord, stage: Stage, workflow: str | None
) -> None:
    letter = dead_letter(record, AT, stage=stage, code="HR3006", error="not JSON", attempts=2, workflow=workflow)
    assert (letter.key, letter.value) == (record.key, record.value)
    assert letter.headers[: len(record.headers)] == record.headers
    read = parse_dead_letter(as_read(letter))
    assert read is not None
    assert (read.key, read.value, read.headers) == (record.key, record.value, record.headers)
    assert (read.topic, read.partition, read.offset, read.last_offset) == ("orders", 3, record.offset, record.offset)
    assert (read.stage, read.code, read.error, read.attempts) == (stage, "HR3006", "not JSON", 2)
    assert (read.timestamp_ms, read.kept) == (record.timestamp_ms, Kept.ALL)
    assert read.workflow == (None if workflow is None else one_line(workflow))


def test_the_headers_are_those_of_the_contract() -> None:
    record = LogRecord(17, 1_763_721_900_123, b"k", b"{", (("trace", b"\xff"),))
    letter = dead_letter(record, AT, stage=Stage.START, code="HR3006", error="e", attempts=1, workflow="shop/fulfil")
    assert letter.headers == (
        ("trace", b"\xff"),
        ("headrace-dlq-stage", b"start"),
        ("headrace-dlq-code", b"HR3006"),
        ("headrace-dlq-error", b"e"),
        ("headrace-dlq-topic", b"orders"),
        ("headrace-dlq-partition", b"3"),
        ("headrace-dlq-offset", b"17"),
        ("headrace-dlq-timestamp", b"1763721900123"),
        ("headrace-dlq-attempts", b"1"),
        ("headrace-dlq-workflow", b"shop/fulfil"),
    )
    assert dead_letter_topic("orders") == "orders.dlq"


def test_a_dead_letter_of_a_dead_letter_gives_back_the_inner_one() -> None:
    first = dead_letter(LogRecord(1, 1, b"k", b"v"), AT, stage=Stage.DECODE, code="HR3001", error="a", attempts=1)
    second = dead_letter(
        as_read(first, 9), TopicPartition("orders.dlq", 0), stage=Stage.MATCH, code="HR3002", error="b", attempts=1
    )
    outer = parse_dead_letter(as_read(second))
    assert outer is not None
    assert (outer.topic, outer.offset, outer.headers) == ("orders.dlq", 9, first.headers)
    inner = parse_dead_letter(LogRecord(9, 0, outer.key, outer.value, outer.headers))
    assert inner is not None
    assert (inner.topic, inner.code, inner.headers) == ("orders", "HR3001", ())


def test_an_error_is_one_line_of_bounded_length() -> None:
    error = "first\r\nsecond\x00\x1b[31m\u2028third" + "é" * 5000
    letter = dead_letter(LogRecord(1, 1, None, b"v"), AT, stage=Stage.DECODE, code="HR3006", error=error, attempts=1)
    written = dict(letter.headers)["headrace-dlq-error"]
    assert written.startswith("first second [31m thirdé".encode())
    assert 998 < len(written) <= 1000
    written.decode()


@given(st.text(alphabet=st.characters(), max_size=400), st.integers(0, 300))
def test_one_line_is_one_line(text: str, bytes_max: int) -> None:
    line = one_line(text, bytes_max)
    assert len(line.encode()) <= bytes_max
    assert line.splitlines() in ([], [line])


def test_a_letter_too_large_for_its_topic_goes_without_the_value() -> None:
    record = LogRecord(5, 7, b"key", b"v" * 5000, (("ce_id", b"1"),))
    full = dead_letter(record, AT, stage=Stage.DECODE, code="HR3004", error="large", attempts=1)
    assert (
        dead_letter(record, AT, stage=Stage.DECODE, code="HR3004", error="large", attempts=1, bytes_max=full.size)
        == full
    )
    letter = dead_letter(
        record, AT, stage=Stage.DECODE, code="HR3004", error="large", attempts=1, bytes_max=full.size - 1
    )
    assert letter.size < full.size
    read = parse_dead_letter(as_read(letter))
    assert read is not None
    assert (read.kept, read.key, read.value, read.headers) == (Kept.NO_VALUE, b"key", None, record.headers)
    assert read.value_sha256 == hashlib.sha256(b"v" * 5000).hexdigest()
    assert (read.value_bytes, read.topic, read.partition, read.offset) == (5000, "orders", 3, 5)


def test_headers_too_large_for_the_topic_leave_coordinates() -> None:
    record = LogRecord(5, 7, b"key", b"v", (("x", b"h" * 5000),))
    letter = dead_letter(record, AT, stage=Stage.DECODE, code="HR3005", error="large", attempts=1, bytes_max=1000)
    assert letter.size <= 1000
    read = parse_dead_letter(as_read(letter))
    assert read is not None
    assert (read.kept, read.key, read.value, read.headers) == (Kept.COORDINATES, None, None, ())
    assert (read.topic, read.partition, read.offset, read.value_bytes) == ("orders", 3, 5, 1)


def test_a_batch_that_cannot_be_unpacked_is_one_letter_with_both_ends() -> None:
    batch = Unreadable(100, 149, 7, "HR5010", "The batch unpacks to more than limits.decompressed_batch.")
    letter = dead_letter(batch, AT, stage=Stage.DECODE, code=batch.code, error=batch.reason, attempts=1)
    assert (letter.key, letter.value) == (None, None)
    read = parse_dead_letter(as_read(letter))
    assert read is not None
    assert (read.offset, read.last_offset, read.kept, read.timestamp_ms) == (100, 149, Kept.COORDINATES, 7)
    assert (read.code, read.error) == (batch.code, batch.reason)


def test_a_refused_output_is_kept_with_the_topic_that_refused_it() -> None:
    output = NewRecord(value=b"{}", key=b"k", headers=(("ce_id", b"1"), ("headrace-run-id", b"3.ab")))
    letter = dead_letter(output, TopicPartition("invoices", 0), stage=Stage.EMIT, code="HR5003", error="r", attempts=3)
    read = parse_dead_letter(as_read(letter))
    assert read is not None
    assert (read.stage, read.topic, read.offset, read.timestamp_ms, read.attempts) == (
        "emit",
        "invoices",
        None,
        None,
        3,
    )
    assert (read.key, read.value, read.headers) == (output.key, output.value, output.headers)


@pytest.mark.parametrize(
    "change",
    [
        ("headrace-dlq-stage", b"lunch"),
        ("headrace-dlq-offset", b"seventeen"),
        ("headrace-dlq-partition", b""),
        ("headrace-dlq-attempts", b"\xff"),
        ("headrace-dlq-kept", b"some"),
    ],
)
def test_a_damaged_dead_letter_is_none(change: tuple[str, bytes]) -> None:
    letter = dead_letter(LogRecord(1, 1, None, b"v"), AT, stage=Stage.DECODE, code="HR3006", error="e", attempts=1)
    headers = (*(header for header in letter.headers if header[0] != change[0]), change)
    assert parse_dead_letter(LogRecord(0, 0, None, b"v", headers)) is None


def test_other_records_are_no_dead_letters() -> None:
    assert parse_dead_letter(LogRecord(0, 0, None, b"v")) is None
    assert parse_dead_letter(LogRecord(0, 0, None, b"v", (("headrace-dlq-code", b"HR3006"),))) is None
    assert parse_dead_letter(LogRecord(0, 0, None, b"v", (("headrace-dlq-stage", b"decode"),))) is None


@given(records)
def test_any_record_is_read_or_is_none(record: LogRecord) -> None:
    parse_dead_letter(record)
