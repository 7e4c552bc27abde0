"""`serve --workers N`: one command, several processes; a killed worker is replaced, a stop stops all, and none outlives the supervisor."""

import json
import os
import re
import signal
import urllib.request
from pathlib import Path

from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.backend import PARTITIONS, Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.instance import Instance
from tests.service.end_to_end.test_members import ACTIVE, under_load
from tests.service.end_to_end.waiting import eventually_now


def workers(supervisor: Instance) -> list[int]:
    """Pids of its processes that live."""
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
    return [int(pid) for pid in children]


def owned(supervisor: Instance) -> dict[int, set[int]]:
    """Run-log partitions by worker index, from the log lines of all. A killed one says nothing: who takes later has them."""
    found: dict[int, set[int]] = {}
    for line in supervisor.all_lines():
        mine = found.setdefault(line["worker"], set())
        match line["event"]:
            case "partition.taken":
                for other in found.values():
                    other.discard(line["partition"])
                mine.add(line["partition"])
            case "partition.released" | "partition.lost":
                mine.discard(line["partition"])
    return found


async def share(supervisor: Instance, count: int = 2) -> None:
    def even() -> bool:
        sizes = [len(parts) for parts in owned(supervisor).values()]
        return len(sizes) == count and sum(sizes) == PARTITIONS and max(sizes) - min(sizes) <= 1

    await eventually_now(even, lambda: f"shared: {owned(supervisor)}; {supervisor.stderr[-2000:]}")


def got(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return answer.read()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


async def test_a_killed_worker_is_replaced_and_nothing_is_lost(kafka: KafkaBroker, station: MakeStation) -> None:
    place = station(
        Backend("kafka", kafka.bootstrap_servers), "orders.py", worker__max_active_runs=ACTIVE, worker__processes=2
    )
    supervisor = place.spawn()
    await share(supervisor)
    async with under_load(place) as load:
        for index in range(2):
            await load.worked(300)
            pids = workers(supervisor)
            os.kill(pids[index], signal.SIGKILL)
            await eventually_now(
                lambda pids=pids: len(workers(supervisor)) == 2 and workers(supervisor) != pids, "a new worker"
            )
            await load.worked(300)
            await share(supervisor)
        verdict, _ = await load.verdict()
        assert verdict.repeated_attempts <= 2 * ACTIVE * 2
        assert verdict.physical_duplicates <= 2 * ACTIVE
    assert len(re.findall(r"was ended by SIGKILL; it is started again", supervisor.stderr)) == 2
    assert supervisor.stop() == 0
    assert "Traceback" not in supervisor.stderr


async def test_every_worker_lists_the_metrics_of_all(kafka: KafkaBroker, station: MakeStation) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "orders.py", worker__processes=2)
    supervisor = place.spawn()
    await share(supervisor)

    def listed() -> list[str]:
        return [target for group in json.loads(got(f"{supervisor.url}/discovery")) for target in group["targets"]]

    await eventually_now(lambda: len(set(listed())) == 2, "both are listed")
    for target in listed():
        assert b"headrace_kafka_partitions_assigned" in got(f"http://{target}/metrics")
    assert supervisor.stop() == 0


async def test_no_worker_outlives_its_supervisor(kafka: KafkaBroker, station: MakeStation) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "orders.py", worker__processes=2)
    supervisor = place.spawn()
    await share(supervisor)
    pids = workers(supervisor)
    assert len(pids) == 2
    supervisor.kill()
    await eventually_now(lambda: all(gone(pid) for pid in pids), "both have ended")
    assert len(supervisor.lines("service.stopped")) == 2, "in good order"


async def test_a_start_that_can_never_work_is_said_once(kafka: KafkaBroker, station: MakeStation) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "orders.py", worker__processes=3)
    code, _, err = place.command("serve", "nowhere")
    assert code == 7
    assert err.count("HR2001") == 1
