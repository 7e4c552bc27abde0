"""A second instance of an app on Kafka takes over; the first one leaves with a clear message; nothing is lost or done twice at once."""

from headrace.topics.outcome import RunStatus
from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.test_kill import orders
from tests.service.end_to_end.waiting import eventually_now

ORDERS = 300


async def test_the_older_instance_gives_way_to_the_newer_one(kafka: KafkaBroker, station: MakeStation) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "orders.py", worker__max_active_runs=40)
    older = await place.spawn().ready()
    async with place.view() as view:
        for partition in range(4):
            await view.publish("orders", orders(range(partition, ORDERS, 4)), partition=partition)
        await eventually_now(lambda: place.effects.count() >= 300, "work")
        newer = place.spawn()
        assert older.ended() == 4, older.stderr[-3000:]
        assert "HR5102" in older.stderr
        assert "Traceback" not in older.stderr
        ledger = await view.all_ended(ORDERS)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == ORDERS
        ids = [dict(record.headers)["ce_id"] for record in await view.records("results")]
        assert len(set(ids)) == ORDERS
        print(f"{len(ids) - len(set(ids))} results written twice, {ledger.skipped} records skipped")
        assert "Traceback" not in newer.stderr
    assert newer.stop() == 0
