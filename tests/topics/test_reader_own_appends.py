"""What this process appended where its reader stands is known before a poll brings it; everything else waits for the poll."""

import struct
from typing import Any

from headrace.topics.client_kafka import KafkaClientSettings
from headrace.topics.codec_kafka import packed
from headrace.topics.fetch_kafka import Fetched
from headrace.topics.fetcher_kafka import Fetcher
from headrace.topics.log import Appended, LogRecord, NewRecord, TopicPartition
from headrace.topics.reader_kafka import Reader

AT = TopicPartition("t", 0)
OWN = [NewRecord(b"a", key=b"k", headers=(("h", b"1"),)), NewRecord(None)]


class Client:
    """Nobody is asked here: no poll runs."""

    settings = KafkaClientSettings(bootstrap_servers=())

    def leader(self, _at: TopicPartition) -> int | None:
        return None


async def no_offsets(_: object) -> Any:
    raise AssertionError


def fetcher_at(position: int) -> tuple[Fetcher, Reader]:
    client: Any = Client()
    fetcher = Fetcher(client, "all", no_offsets)
    return fetcher, fetcher.add(AT, position)


def polled(base_offset: int, *values: bytes) -> bytes:
    """A batch as a poll brings it. The base offset is not part of the checksum."""
    batch = bytearray(packed([NewRecord(value) for value in values], -1, -1, -1, timestamp_ms=5))
    struct.pack_into(">q", batch, 0, base_offset)
    return bytes(batch)


def found(*batches: bytes, end: int) -> Fetched:
    return Fetched(AT.topic, AT.partition, 0, end, end, [], memoryview(b"".join(batches)))


async def test_it_comes_without_a_poll_as_it_was_written() -> None:
    fetcher, reader = fetcher_at(7)
    fetcher.appended(AT, Appended(7, 1_000), OWN)
    batch = await anext(reader)
    assert list(batch.records) == [
        LogRecord(7, 1_000, b"k", b"a", (("h", b"1"),)),
        LogRecord(8, 1_000, None, None, ()),
    ]
    assert batch.end_offset == 9
    assert reader.fetch_offset == 9


async def test_behind_something_that_was_not_read_yet_it_waits_for_the_poll() -> None:
    fetcher, reader = fetcher_at(7)
    fetcher.appended(AT, Appended(8, 1_000), OWN)
    assert reader.fetch_offset == 7
    assert reader.feed(found(polled(7, b"foreign"), polled(8, b"a", b"b"), end=10))
    records = (await anext(reader)).records
    assert [record.offset for record in records] == [7, 8, 9]


async def test_an_acknowledgement_of_what_was_read_before_brings_nothing() -> None:
    fetcher, reader = fetcher_at(7)
    assert reader.feed(found(polled(7, b"a", b"b"), end=9))
    fetcher.appended(AT, Appended(7, 1_000), OWN)
    assert [record.offset for record in (await anext(reader)).records] == [7, 8]
    assert reader.feed(found(polled(9, b"c"), end=10))
    assert [record.offset for record in (await anext(reader)).records] == [9]


async def test_a_poll_that_brings_it_again_is_no_news_and_what_follows_is() -> None:
    fetcher, reader = fetcher_at(7)
    fetcher.appended(AT, Appended(7, 1_000), OWN)
    again = polled(7, b"a", b"b")
    assert not reader.feed(found(again, end=9))
    assert reader.feed(found(again, polled(9, b"foreign"), end=10))
    assert [record.offset for record in (await anext(reader)).records] == [7, 8, 9]


async def test_a_reader_with_a_full_queue_is_not_fed_past_its_bound() -> None:
    fetcher, reader = fetcher_at(0)
    offset = 0
    large = [NewRecord(bytes(64 * 1024))]
    while reader.has_room:
        fetcher.appended(AT, Appended(offset, 1_000), large)
        offset += 1
    held = reader.queued_bytes
    fetcher.appended(AT, Appended(offset, 1_000), large)
    assert reader.queued_bytes == held
    assert reader.fetch_offset == offset
