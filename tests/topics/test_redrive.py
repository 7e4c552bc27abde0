"""The headers of redriven records: what they say, and when they say nothing."""

import pytest

from headrace.topics.dead_letter import DeadLetter, Stage, dead_letter, parse_dead_letter
from headrace.topics.log import LogRecord, NewRecord, TopicPartition
from headrace.topics.redrive import OfOtherApp, Redriven, redrive, redrive_count, redriven

LETTERS = TopicPartition("orders.dlq", 2)
ORIGINAL = NewRecord(b"\x00value", key=b"k", headers=(("ce_id", b"1"), ("ce_id", b"2")))


def letter_of(record: NewRecord, app: str | None = None) -> DeadLetter:
    made = dead_letter(
        as_read(record),
        TopicPartition("orders", 2),
        stage=Stage.DECODE,
        code="HR1",
        error="no",
        attempts=1,
        app=app,
    )
    letter = parse_dead_letter(as_read(made))
    assert letter is not None
    return letter


def as_read(record: NewRecord) -> LogRecord:
    return LogRecord(9, 7, record.key, record.value, record.headers)


def read(record: NewRecord, topic: str = "orders", app: str = "shop") -> Redriven | OfOtherApp | None:
    return redriven(as_read(record), topic, app=app, refused="shop.dlq")


def test_the_original_comes_back_byte_for_byte_with_its_identity() -> None:
    record = redrive(letter_of(ORIGINAL), LETTERS, 17, app="shop", count=1)
    assert (record.key, record.value) == (ORIGINAL.key, ORIGINAL.value)
    assert record.headers[:2] == ORIGINAL.headers
    assert record.headers[2:] == (
        ("headrace-redrive", b"1"),
        ("headrace-redrive-of", b"orders.dlq/2/17"),
        ("headrace-redrive-app", b"shop"),
    )
    found = read(record)
    assert isinstance(found, Redriven)
    assert (found.of, found.count) == ("orders.dlq/2/17", 1)
    assert found == read(record)


def test_one_that_failed_again_names_its_newest_letter_only() -> None:
    once = redrive(letter_of(ORIGINAL), LETTERS, 17, app="shop", count=1)
    again = letter_of(once)
    assert redrive_count(again.headers) == 1
    twice = redrive(again, LETTERS, 40, app="shop", count=2)
    assert twice.headers[:2] == ORIGINAL.headers
    assert [value for name, value in twice.headers if name.startswith("headrace-")] == [
        b"2",
        b"orders.dlq/2/40",
        b"shop",
    ]


def test_other_bytes_with_the_same_headers_are_no_copy() -> None:
    record = redrive(letter_of(ORIGINAL), LETTERS, 17, app="shop", count=1)
    other = NewRecord(b"another", key=record.key, headers=record.headers)
    assert read(record) != read(other)


def test_a_letter_says_whose_it_is() -> None:
    """Apps that read the same topic share its dead letters; the others have had the record already."""
    record = redrive(letter_of(ORIGINAL, app="billing"), LETTERS, 17, app="shop", count=1)
    assert read(record) == OfOtherApp("billing")
    assert isinstance(read(record, app="billing"), Redriven)


def test_a_redriven_output_may_start_runs() -> None:
    record = redrive(letter_of(ORIGINAL), TopicPartition("shop.dlq", 0), 3, app="shop", count=1)
    assert isinstance(read(record, topic="results"), Redriven)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("headrace-redrive", b"1"),),
        (("headrace-redrive-of", b"orders.dlq/2/17"),),
        (("headrace-redrive", b"one"), ("headrace-redrive-of", b"orders.dlq/2/17")),
        (("headrace-redrive", b"0"), ("headrace-redrive-of", b"orders.dlq/2/17")),
        (("headrace-redrive", b"9" * 5_000), ("headrace-redrive-of", b"orders.dlq/2/17")),
        (("headrace-redrive", "\u0661".encode()), ("headrace-redrive-of", b"orders.dlq/2/17")),
        (("headrace-redrive", b"1"), ("headrace-redrive-of", b"other.dlq/2/17")),
        (("headrace-redrive", b"1"), ("headrace-redrive-of", b"orders.dlq/2/x")),
        (("headrace-redrive", b"1"), ("headrace-redrive-of", b"orders.dlq/2")),
        (("headrace-redrive", b"1"), ("headrace-redrive-of", b"")),
        (("headrace-redrive", b"1"), ("headrace-redrive-of", b"\xff")),
    ],
)
def test_headers_that_make_no_sense_say_nothing(headers: tuple[tuple[str, bytes], ...]) -> None:
    assert read(NewRecord(b"v", headers=headers)) is None
