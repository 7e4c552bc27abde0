"""`KafkaBroker`: one real Kafka node (KRaft, broker and controller in one process) on loopback.

Tests and benchmarks use it. Its data and ports outlive kill and restart: a client sees what it would see in real life.
"""

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.kafka_broker import storage
from tests.kafka_broker.identity import new_id
from tests.kafka_broker.jars import HERE, jars, java

READY_TIMEOUT_S: Final = 60  # 3 s on an idle machine, 5 s after kill -9; a loaded CI machine takes its time
STOP_TIMEOUT_S: Final = 30
# Below the range from which systems take ports for outgoing connections: nobody grabs ours between kill and restart,
# and a client that reconnects to the dead broker cannot connect to itself. Who runs beside the tests is told other ones.
PORTS_VARIABLE: Final = "HEADRACE_TEST_PORTS"
PORTS: Final = range(*map(int, os.environ.get(PORTS_VARIABLE, "20000-26000").split("-")))
_given: set[int] = set()
# A JVM that compiles once and quickly takes half the processor time until it serves; one for measurements is as in production.
HURRY: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


class BrokerFailed(Exception):
    """The broker ended or did not get ready. The message ends with the tail of its log."""


class Quorum(NamedTuple):
    """A node's place among several: its id, all `id@host:port` of the controllers, and the cluster's id."""

    node: int
    voters: tuple[str, ...]
    cluster_id: str


class KafkaBroker:
    """One broker. `async with KafkaBroker() as broker:` starts it and waits; leaving stops it and removes its data.

    `port`: of the Kafka listener, 0 or none = a free one. `properties`: added to server.properties, same key wins.
    `data`: folder to keep; default a temporary one that goes with the broker. `advertised`: more listeners, each by the
    port that clients are told (a proxy's) and the port it listens on. `quorum`: one of several nodes (`cluster.py`).
    `steady`: a JVM as in production, for measurements; others start sooner.
    Raises KafkaUnavailable if the machine cannot run one, BrokerFailed if it does not start.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        data: Path | None = None,
        heap_mb: int = 512,
        advertised: Mapping[int, int] | None = None,
        quorum: Quorum | None = None,
        steady: bool = False,
    ) -> None:
        self._port = port or free_port()
        self._quorum = quorum or Quorum(1, (f"1@127.0.0.1:{free_port()}",), new_id())
        self._controller_port = int(self._quorum.voters[self._quorum.node - 1].rpartition(":")[2])
        self._steady = steady
        self._advertised = dict(advertised or {})
        self._own_data = data is None
        self._data = data or Path(tempfile.mkdtemp(prefix="headrace-kafka-"))
        self._properties = dict(properties or {})
        self._heap_mb = heap_mb
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`, the same over kills and restarts."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the JVM that runs now, for signals; 0 if none does."""
        return self._pid

    @property
    def log(self) -> Path:
        """What the broker wrote: warnings and errors of all starts."""
        return self._data / "broker.log"

    async def start(self) -> None:
        """Start on the present data (formatted the first time) and wait until it serves metadata."""
        if self._keeper is not None:
            raise RuntimeError("The broker runs already.")
        if _listens(self._port):
            raise BrokerFailed(f"Another process listens on {self.bootstrap_servers}.")
        command = await asyncio.to_thread(self._prepare)
        self._keeper = subprocess.Popen(
            [sys.executable, "-IS", str(HERE / "keeper.py"), str(self.log), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C goes to the tests, which then stop the broker in order
        )
        assert self._keeper.stdout is not None
        self._pid = int(await asyncio.to_thread(self._keeper.stdout.readline))
        try:
            await self._wait_ready()
        except BaseException:
            self.kill()
            raise

    async def restart(self) -> None:
        """Start again on the same data and ports; stops it in order first if it runs."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """Controlled shutdown (SIGTERM). Does nothing if it does not run."""
        if self._keeper is None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        try:
            await asyncio.to_thread(self._keeper.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
        self._reap()

    def kill(self) -> None:
        """kill -9, as a crash of the machine's process would be; returns once it is gone. Data and ports stay."""
        if self._keeper is None:
            return
        self._signal(signal.SIGKILL)
        self._reap()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Delete the data, if it was ours. The broker must not run."""
        if self._own_data:
            shutil.rmtree(self._data, ignore_errors=True)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.remove()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        self.remove()

    # --- the process ---

    def _prepare(self) -> list[str]:
        """Write the configuration, format the storage once, return the command that runs the broker."""
        runtime, libraries = java(), jars()
        self._data.mkdir(parents=True, exist_ok=True)
        configuration = self._data / "server.properties"
        configuration.write_text("".join(f"{key}={value}\n" for key, value in self._server_properties().items()))
        base = [f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", "-cp", f"{libraries}/*"]
        try:
            storage.make(
                self._data / "log",
                node=self._quorum.node,
                cluster_id=self._quorum.cluster_id,
                java=[runtime, *HURRY, *base],
            )
        except storage.FormatFailed as error:
            raise BrokerFailed(str(error)) from error
        kind = () if self._steady else HURRY
        return [runtime, f"-Xmx{self._heap_mb}m", *kind, *base, "kafka.Kafka", str(configuration)]

    def _server_properties(self) -> dict[str, str]:
        own = {"PLAINTEXT": self._port, "CONTROLLER": self._controller_port}
        told = {f"ADVERTISED{index}": ports for index, ports in enumerate(self._advertised.items())}
        return {
            "process.roles": "broker,controller",
            "node.id": str(self._quorum.node),
            "controller.quorum.voters": ",".join(self._quorum.voters),
            "listeners": _listeners({**own, **{name: listens for name, (_, listens) in told.items()}}),
            "advertised.listeners": _listeners({**own, **{name: says for name, (says, _) in told.items()}}),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in (*own, *told)),
            "log.dirs": str(self._data / "log"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # Without these two, a restart after kill -9 waits 13 s for the old session to end.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            **self._properties,
        }

    def _signal(self, number: signal.Signals) -> None:
        """To the JVM, if it lives: the keeper reaps it, so the keeper's end says whether the pid is still ours."""
        if self._keeper is not None and self._keeper.poll() is None:
            os.kill(self._pid, number)

    def _reap(self) -> None:
        if self._keeper is None:
            return
        self._keeper.wait()
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            if pipe is not None:
                pipe.close()
        self._keeper, self._pid = None, 0

    # --- ready ---

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not await self._answers():
            if self._keeper is None or self._keeper.poll() is not None:
                raise BrokerFailed(f"The broker ended before it was ready. {self._log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerFailed(f"The broker was not ready within {READY_TIMEOUT_S} s. {self._log_tail()}")
            await asyncio.sleep(0.05)  # between two looks at a process that cannot tell us

    async def _answers(self) -> bool:
        """True once the metadata lists this node: others of its cluster may do before, and a topic cannot have a replica here.

        Raises BrokerFailed if it is another cluster's: it was quicker to take the port.
        """
        if not _listens(self._port):
            return False  # saves aiokafka's error line for each look
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=5000)
        try:
            await admin.start()
            told = await admin.describe_cluster()
            if told["cluster_id"] != storage.cluster_of(self._data / "log"):
                raise BrokerFailed(
                    f"Another broker listens on {self.bootstrap_servers}, of cluster {told['cluster_id']}."
                )
            return any(each["node_id"] == self._quorum.node for each in told["brokers"])
        except (KafkaError, OSError):
            return False
        finally:
            await admin.close()

    def _log_tail(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"Its log ends with:\n{text[-3000:]}"


def _listeners(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def free_port() -> int:
    """A port that nobody listens on, once in this process: whoever got it may listen only later."""
    for port in random.sample(PORTS, 200):
        if port in _given:
            continue
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise BrokerFailed(f"No free port among 200 tries in {PORTS}.")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
