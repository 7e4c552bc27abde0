"""`Station`: one app's place on a backend: its folder, its topics, its processes, and a test's own view of the log."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from headrace.topics.dead_letter import DeadLetter, parse_dead_letter
from headrace.topics.log import Log, LogRecord, NewRecord, Position, TopicPartition
from tests.service.end_to_end.backend import PARTITIONS, Backend
from tests.service.end_to_end.effects import Effects, environment
from tests.service.end_to_end.instance import Instance, run
from tests.service.end_to_end.ledger import Ledger
from tests.service.end_to_end.waiting import eventually

APPS = Path(__file__).parent / "apps"


class Station:
    """`name` is the app's name and the prefix of its topics: apps read it from E2E_NAME. `settings` are for all processes."""

    def __init__(
        self,
        backend: Backend,
        folder: Path,
        name: str,
        app: str | Path,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.backend = backend
        self.folder = folder
        self.name = name
        self.app = Path(app) if Path(app).is_absolute() else APPS / app
        self.effects = Effects(folder / "effects.jsonl")
        self.instances: list[Instance] = []
        self._settings = dict(settings or {})

    def topic(self, name: str) -> str:
        return f"{self.name}.{name}"

    # --- processes ---

    def arguments(self, *words: str, **more: object) -> list[str]:
        """A command line with this app's settings. Keywords are settings, `section__key`."""
        flat = {
            f"{section}.{key}": value
            for section, keys in self.backend.settings(self.name, self.folder).items()
            for key, value in keys.items()
        }
        given = {name.replace("__", ".", 1): value for name, value in {**self._settings, **more}.items()}
        flat |= {"telemetry.metrics_port": 0, "telemetry.log_level": "debug", "log.checkpoint_bytes": "64MiB", **given}
        return [*words, *(part for name, value in flat.items() for part in ("--set", f"{name}={value}"))]

    def environment(self, **more: str) -> dict[str, str]:
        return {"E2E_NAME": self.name, **environment(self.effects.path), **more}

    def spawn(
        self, app: str | Path | None = None, env: Mapping[str, str] | None = None, **settings: object
    ) -> Instance:
        """A service process, perhaps not the first."""
        chosen = self.app if app is None else (Path(app) if Path(app).is_absolute() else APPS / app)
        instance = Instance(
            self.arguments(*self.backend.command(os.fspath(chosen)), **settings),
            folder=self.folder,
            number=len(self.instances),
            environment=self.environment(**(env or {})),
        )
        self.instances.append(instance)
        return instance

    def command(self, *words: str, **settings: object) -> tuple[int, str, str]:
        """A `headrace` command that ends by itself: exit code, standard output, standard error."""
        return run(self.arguments(*words, **settings), folder=self.folder, environment=self.environment())

    def close(self) -> None:
        """End what still runs."""
        for instance in self.instances:
            if instance.process.poll() is None:
                instance.kill()

    @property
    def now(self) -> Instance:
        """The newest process."""
        return self.instances[-1]

    def view(self) -> "View":
        return View(self)


class View:
    """A test's own look at the log. `async with station.view() as view`."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._stack = AsyncExitStack()
        self._read: dict[TopicPartition, list[LogRecord]] = {}
        self.log: Log = station.backend.log(station.name, station.folder)
        self.ledger = Ledger(self.log, f"{station.name}.runs", partitions=PARTITIONS)

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.log)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def publish(self, topic: str, records: Sequence[NewRecord], *, partition: int = 0) -> int:
        """Append to a topic of the station as any producer would; the offset of the first one."""
        done = await self.log.publish(TopicPartition(self._station.topic(topic), partition), records)
        return done.base_offset

    async def records(self, topic: str) -> list[LogRecord]:
        """Everything in a topic of the station now, by partition and offset. Looks on from where it was."""
        name = self._station.topic(topic)
        partitions = [TopicPartition(name, number) for number in range(await self.log.partitions(name))]
        offsets = await self.log.offsets(partitions)
        for at in partitions:
            seen = self._read.setdefault(at, [])
            start, end = (seen[-1].offset + 1 if seen else offsets[at].start), offsets[at].end
            if start < end:
                seen += await self.until(at, start, end)
        return [record for at in partitions for record in self._read[at]]

    async def until(self, at: TopicPartition, start: int, end: int) -> list[LogRecord]:
        """The records of one partition from `start` to before `end`."""
        if start >= end:
            return []
        found: list[LogRecord] = []
        async with self.log.read(at, start) as batches:
            async for batch in batches:
                for record in batch.records:
                    assert isinstance(record, LogRecord), record
                    if record.offset < end:
                        found.append(record)
                if batch.records[-1].offset + 1 >= end:
                    break
        return found

    async def dead_letters(self, topic: str) -> list[DeadLetter]:
        letters = [parse_dead_letter(record) for record in await self.records(f"{topic}.dlq")]
        return [letter for letter in letters if letter is not None]

    async def audit(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(record.value or b"null") for record in await self.records("audit")]

    async def position(self, topic: str, partition: int = 0) -> Position | None:
        """The router's committed position."""
        at = TopicPartition(self._station.topic(topic), partition)
        return (await self.log.committed(f"{self._station.name}.router", [at])).get(at)

    async def all_ended(self, runs: int, *, patience_s: float = 60.0) -> Ledger:
        """Wait until so many runs have ended, none is open, and everything has left."""

        async def look() -> bool:
            ledger = await self.ledger.refresh()
            return len(ledger.ended()) >= runs and not ledger.open() and not ledger.outbox()

        await eventually(look, lambda: self._story(runs), patience_s=patience_s)
        return self.ledger

    def _story(self, runs: int) -> str:
        ledger = self.ledger
        waits = ledger.open()[:5]
        lines = "\n".join(f"  {run}: {ledger.bodies(run)[-3:]}" for run in waits)
        process = self._station.now
        return (
            f"{runs} runs ended; {len(ledger.starts)} started, {len(ledger.ended())} ended, {len(ledger.open())} open, "
            f"{ledger.outbox()} in the outbox. The first open ones:\n{lines}\n"
            f"exit code {process.process.poll()}; standard error ends with:\n{process.stderr[-3000:]}"
        )
