"""What only a real broker can send: compressed batches of a thousand times their size, and transactions that were given up."""

import pytest
from aiokafka import AIOKafkaProducer

from headrace.service import source_position
from headrace.topics.dead_letter import DeadLetter, Kept
from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.test_bad_input import GOOD, sandwich
from tests.service.end_to_end.waiting import eventually

MIB = 1 << 20
BOMB_RECORDS = 200  # of 1 MiB each: 200 KB or less on the wire
MEMORY_KIB_MAX = 300 << 10  # an instance at rest, the bound of 64 MiB and copies; 200 MiB unpacked would be beyond


@pytest.fixture
def kitchen(kafka: KafkaBroker, station: MakeStation) -> Station:
    place = station(Backend("kafka", kafka.bootstrap_servers), "tasting.py")
    place.spawn()
    return place


async def test_a_compressed_bomb_is_one_dead_letter_with_coordinates_and_memory_stays_bounded(
    kitchen: Station, kafka: KafkaBroker
) -> None:
    await kitchen.now.ready()
    codecs = ("gzip", "zstd")
    async with kitchen.view() as view:
        for codec in codecs:

            async def publish(codec: str = codec) -> None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=kafka.bootstrap_servers,
                    compression_type=codec,
                    max_batch_size=256 * MIB,
                    max_request_size=256 * MIB,
                )
                async with producer:
                    batch = producer.create_batch()
                    for _ in range(BOMB_RECORDS):
                        assert batch.append(key=b"k", value=bytes(MIB), timestamp=None) is not None
                    await (await producer.send_batch(batch, kitchen.topic("in"), partition=0))

            await sandwich(kitchen, view, codec, publish)

        async def both() -> list[DeadLetter]:
            found = [letter for letter in await view.dead_letters("in") if letter.code == "HR5010"]
            return found if len(found) >= len(codecs) else []

        letters = await eventually(both, "a dead letter of each bomb")
        assert len(letters) == len(codecs)
        for letter in letters:
            assert letter.stage == "decode"
            assert letter.kept is Kept.COORDINATES
            assert letter.value is None
            assert (letter.last_offset or 0) - (letter.offset or 0) + 1 == BOMB_RECORDS
        peak = kitchen.now.memory_peak_kib
        print(f"bombs of {BOMB_RECORDS} MiB: peak memory {peak / 1024:.0f} MiB")
        assert peak < MEMORY_KIB_MAX
    assert kitchen.now.stop() == 0


async def test_a_source_is_done_when_the_last_transaction_is_whether_it_was_given_up_or_not(
    kitchen: Station, kafka: KafkaBroker
) -> None:
    await kitchen.now.ready()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{kitchen.name}.whole")
    async with kitchen.view() as view, producer:
        async with producer.transaction():
            await producer.send_and_wait(kitchen.topic("in"), GOOD, key=b"k", partition=0)

        async def done(offset: int) -> bool:
            position = await view.position("in")
            if position is None or position.offset != offset:
                return False
            before = source_position.of(position).before
            return (
                before is not None and before.offset == 0
            )  # the one record: a topic that is made anew is still noticed

        await eventually(lambda: done(2), "a position behind the record and the transaction's marker")
        await producer.begin_transaction()
        await producer.send_and_wait(kitchen.topic("in"), GOOD, key=b"k", partition=0)
        await producer.abort_transaction()
        await eventually(lambda: done(4), "a position behind what was given up, too")
    assert kitchen.now.stop() == 0


async def test_records_of_a_transaction_that_was_given_up_start_nothing(kitchen: Station, kafka: KafkaBroker) -> None:
    await kitchen.now.ready()
    async with kitchen.view() as view:

        async def publish() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=kitchen.name)
            async with producer:
                await producer.begin_transaction()
                for _ in range(3):
                    await producer.send_and_wait(kitchen.topic("in"), GOOD, key=b"k", partition=0)
                await producer.abort_transaction()

        await sandwich(kitchen, view, "aborted", publish)
        ledger = await view.ledger.refresh()
        assert {ledger.start(run).key for run in ledger.starts} == {"aborted"}
        assert not await view.dead_letters("in")
    assert kitchen.now.stop() == 0
