"""How each target is prepared, started and asked. `bench.py` treats all three alike."""

import asyncio
import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.first_command import first_command_embedded_us, first_command_kafka_us
from benchmarks.order import PARTITIONS
from benchmarks.program import Program
from benchmarks.scenario import TargetName
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.spec import TopicSpec

APP: Final = Path(__file__).parent / "app"
LOOK_S: Final = 0.05
ROOT: Final = Path(__file__).parents[1]


class Place(NamedTuple):
    """Where one scenario happens: names that nobody else uses, and a folder of its own.

    `bootstrap_servers` of the one broker; `settings` and `profile` are for Headrace (profile: file for cProfile).
    """

    app: str
    folder: Path
    bootstrap_servers: str
    settings: Sequence[str] = ()
    profile: Path | None = None

    @property
    def orders(self) -> str:
        return f"{self.app}-orders"

    @property
    def results(self) -> str:
        return f"{self.app}-results"

    @property
    def log_path(self) -> Path:
        return self.folder / "log.sqlite"

    def python(self, *arguments: str) -> list[str]:
        """A command line for the service; under cProfile if that is wanted."""
        profiler = ["-m", "cProfile", "-o", str(self.profile)] if self.profile else []
        return [sys.executable, *profiler, *arguments]


class Target(Protocol):
    """The service under measurement, and the load and collector that fit it."""

    talking: bool
    """Whether the service prints lines for us."""

    @property
    def folder(self) -> Path:
        """Where the service runs: Headrace's own folder for each scenario, so that no headrace.toml is found."""
        ...

    async def prepare(self) -> None:
        """Make the topics: results stamped by the log, orders with the timestamps that the load gives."""
        ...

    def service(self) -> list[str]: ...
    def load(self, rate: float, count: int) -> list[str]: ...
    def collector(self, count: int, into: Path, *, lazy: bool) -> list[str]: ...

    async def ready(self, service: Program) -> None:
        """Return once it consumes, or would if there was anything."""
        ...

    async def first_us(self, last_words: str) -> float | None:
        """When it had its first order, since the epoch; asked after the end. None: its log was trimmed since. `last_words`: what it printed when stopped."""
        ...


def target(name: TargetName, place: Place) -> Target:
    match name:
        case TargetName.FLOOR:
            return _Floor(place)
        case TargetName.KAFKA:
            return _Kafka(place)
        case TargetName.EIGHT:
            return _Kafka(place, "log.partitions=8")
        case TargetName.WORKERS_2:
            return _Kafka(place, "worker.processes=2")
        case TargetName.WORKERS_4:
            return _Kafka(place, "worker.processes=4")
        case TargetName.EMBEDDED:
            return _Embedded(place, "history.url=none")


class _OnKafka:
    def __init__(self, place: Place) -> None:
        self._place = place

    async def prepare(self) -> None:
        place = self._place
        admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap_servers)
        await admin.start()
        try:
            stamped = {"message.timestamp.type": "LogAppendTime"}
            await admin.create_topics(
                [
                    NewTopic(place.orders, PARTITIONS, 1, topic_configs={"message.timestamp.type": "CreateTime"}),
                    NewTopic(place.results, PARTITIONS, 1, topic_configs=stamped),
                ]
            )
        finally:
            await admin.close()

    def load(self, rate: float, count: int) -> list[str]:
        where = ("--bootstrap-servers", self._place.bootstrap_servers, "--topic", self._place.orders)
        return _helper("load_kafka", *where, "--rate", str(rate), "--count", str(count))

    def collector(self, count: int, into: Path, *, lazy: bool) -> list[str]:
        where = ("--bootstrap-servers", self._place.bootstrap_servers, "--topic", self._place.results)
        return _helper("collect_kafka", *where, "--count", str(count), "--into", str(into), *["--lazy"] * lazy)


class _Floor(_OnKafka):
    talking = True
    folder = ROOT

    def service(self) -> list[str]:
        place = self._place
        topics = ("--orders", place.orders, "--results", place.results)
        return place.python("-m", "benchmarks.floor", "--bootstrap-servers", place.bootstrap_servers, *topics)

    async def ready(self, service: Program) -> None:
        await service.expect("ready")

    async def first_us(self, last_words: str) -> float | None:
        return float(json.loads(last_words.splitlines()[-1])["first_us"])


class _Headrace:
    """What Headrace on Kafka and on the embedded log have in common."""

    talking = False

    def __init__(self, place: Place, *settings: str) -> None:
        self._place = place
        self._settings = (*settings, *place.settings)
        self._metrics_port = _free_port()

    @property
    def folder(self) -> Path:
        return self._place.folder

    def _command(self, verb: str, *where: str) -> list[str]:
        place = self._place
        settings = [part for setting in self._settings for part in ("--set", setting)]
        ours = ("--app-name", place.app, "--metrics-port", str(self._metrics_port), "--set", "api.enabled=false")
        return place.python("-m", "headrace", verb, str(APP), *where, *ours, *settings)

    async def ready(self, service: Program) -> None:
        """Ask /readyz until it says yes. Raises `ProgramFailed` if the service ends first."""
        url = f"http://127.0.0.1:{self._metrics_port}/readyz"
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_set_at_end(service, ended))
            while not ended.is_set() and not await asyncio.to_thread(_is_ok, url):
                await asyncio.sleep(LOOK_S)
            watch.cancel()
        if ended.is_set():
            raise service.failed("ended before it was ready")


class _Kafka(_Headrace, _OnKafka):
    def service(self) -> list[str]:
        return self._command("serve", "--bootstrap-servers", self._place.bootstrap_servers, "--create-topics")

    async def first_us(self, last_words: str) -> float | None:
        return await first_command_kafka_us(self._place.bootstrap_servers, f"{self._place.app}.runs")


class _Embedded(_Headrace):
    async def prepare(self) -> None:
        async with EmbeddedLog(self._place.log_path, owner=True) as log:
            names = (self._place.orders, self._place.results)
            await log.create([TopicSpec(name=name, partitions=PARTITIONS) for name in names])

    def service(self) -> list[str]:
        return self._command("dev", "--log-path", str(self._place.log_path))

    def load(self, rate: float, count: int) -> list[str]:
        where = ("--log-path", str(self._place.log_path), "--topic", self._place.orders)
        return _helper("load_embedded", *where, "--rate", str(rate), "--count", str(count))

    def collector(self, count: int, into: Path, *, lazy: bool) -> list[str]:
        where = ("--log-path", str(self._place.log_path), "--topic", self._place.results)
        return _helper("collect_embedded", *where, "--count", str(count), "--into", str(into), *["--lazy"] * lazy)

    async def first_us(self, last_words: str) -> float | None:
        return await first_command_embedded_us(self._place.log_path, f"{self._place.app}.runs")


def _helper(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{module}", *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


async def _set_at_end(service: Program, ended: asyncio.Event) -> None:
    await service.ended()
    ended.set()
