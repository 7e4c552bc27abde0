"""`Session`: one app's life under faults: its topics, workers, sink and load, the faults that it met, and the verdict.

async with Session(place, seed=1) as session:
    await session.spawn().ready()
    async with session.load(ahead=60):
        ...  # faults
    verdict = await session.verdict()
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from headrace.topics.errors import HeadraceError
from tests.chaos.judge import NO_FAULT, Evidence, Position, Verdict, Violation, Window, bugs_in, judge
from tests.chaos.kafka_door import KafkaDoor
from tests.chaos.kafka_source import KafkaSource
from tests.chaos.load import PARTITIONS as SOURCE_PARTITIONS
from tests.chaos.load import EmbeddedDoor, Load
from tests.chaos.recorder import At, EmbeddedSource, Recorder
from tests.chaos.run_log import RunLog
from tests.chaos.sink import ROOT, Sink
from tests.service.end_to_end.instance import Instance, run
from tests.service.end_to_end.waiting import eventually, eventually_now

APP = Path(__file__).parent / "apps" / "programs.py"
_numbers = itertools.count()
_LOOK_S = 0.3
STUCK_S = 90.0  # above what a look of the recorder's, or a put of the load's, waits for a broker
_STOOD_S = 5.0
_STARTS_S = 60.0  # patience with a worker that has not begun its first attempt
_BEHIND_S = 3.0  # positions are committed four times a second
RATE = 80.0  # jobs a second: all parts work all the time, and the machine has room to start a worker


class Stuck(Exception):
    """Not the product's fault: the load or the recorder."""


class Place(NamedTuple):
    """Where an app lives. `servers` is empty for the embedded file. `replication` of the topics that we make."""

    servers: str = ""
    replication: int = 1


class Lag(NamedTuple):
    """A look at the router's positions, and just after it at the ends of the source."""

    committed: Mapping[At, int]
    ends: Mapping[At, int]


class Session:
    """`partitions` of the run log. `settings` are for all workers, as `section__key`; the rest is in `worker.py`."""

    def __init__(
        self,
        place: Place,
        *,
        seed: int,
        partitions: int = 8,
        embedded_folder: Path | None = None,
        session_s: float | None = None,
        checkpoint_bytes: int | None = None,
        **settings: object,
    ) -> None:
        self.place = place
        self.seed = seed
        self.name = f"chaos{os.getpid()}.{next(_numbers)}"
        self._temporary = tempfile.TemporaryDirectory(prefix="headrace-chaos-")
        self.folder = Path(self._temporary.name)
        self.path = (embedded_folder or self.folder) / "log.sqlite"
        self.partitions = partitions
        self.settings = settings
        if session_s is not None:
            self.settings["kafka__extra.session.timeout.ms"] = round(session_s * 1000)
        self.sink = Sink(self.folder / "effects.jsonl")
        self.instances: list[Instance] = []
        self.windows: list[Window] = []
        self.positions: list[Position] = []
        self.run_log = RunLog(self.name, partitions)
        source = KafkaSource(place.servers) if place.servers else EmbeddedSource(self.path)
        kept = [self.topic(name) for name in ("in", "results", "in.dlq", "audit")]
        self.recorder = Recorder(source, kept, self.topic("runs"), self.run_log.see)
        self.loads: list[Load] = []
        self.worker_clock = True
        self.trims = checkpoint_bytes is not None
        self._hand = {} if checkpoint_bytes is None else {"CHAOS_CHECKPOINT_BYTES": str(checkpoint_bytes)}
        self._judged = self.folder / "judged.json"
        self.hanging = 0
        """Runs that are to stay open."""
        self.resumed: list[str] = []
        self._behind_since: dict[At, float] = {}
        self._gone_on: set[At] = set()
        self._settled_at = Lag({}, {})
        """The look that found nothing left to do: a zombie may still move a position back, and nothing depends on that."""
        self.stuck = ""
        """What ended the session before its time."""
        self._recording: asyncio.Task[None] | None = None
        self._recorded_at = time.monotonic()
        self._watching: asyncio.Task[None] | None = None

    def topic(self, name: str) -> str:
        return f"{self.name}.{name}"

    async def __aenter__(self) -> Self:
        if self.place.servers:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.place.servers)
            await admin.start()
            try:
                made: Any = await admin.create_topics(
                    [
                        NewTopic(self.topic("in"), SOURCE_PARTITIONS, self.place.replication),
                        NewTopic(self.topic("results"), SOURCE_PARTITIONS, self.place.replication),
                        NewTopic(
                            self.topic("tiny"), 1, self.place.replication, topic_configs={"max.message.bytes": "1024"}
                        ),
                    ]
                )
                refused = [each for each in made.topic_errors if each[1]]
                assert not refused, refused
            finally:
                await admin.close()
        loop = asyncio.get_running_loop()
        self._recording = loop.create_task(self._record())
        line = asyncio.current_task()
        assert line is not None
        self._watching = loop.create_task(self._watch(line))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._recording is not None
        assert self._watching is not None
        self._watching.cancel()
        self._recording.cancel()
        await asyncio.wait([self._watching, self._recording])
        for instance in self.instances:
            if instance.process.poll() is None:
                instance.kill()
        self.sink.close()
        for load in self.loads:
            await load.close()
        await self.recorder.close()
        if self.stuck and error is not None:
            line = asyncio.current_task()
            assert line is not None
            while line.cancelling():
                line.uncancel()
            self._temporary.cleanup()
            raise Stuck(self.stuck) from error
        if error is not None and os.environ.get("CHAOS_KEEP"):
            print(f"kept: {self.folder}")
            self._temporary._finalizer.detach()  # pyright: ignore[reportAttributeAccessIssue]
        else:
            self._temporary.cleanup()

    async def _record(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await self.recorder.refresh()
            if self.trims:
                self._allow_trims()
            self._recorded_at = time.monotonic()
            await asyncio.sleep(_LOOK_S)

    def _allow_trims(self) -> None:
        fresh = self._judged.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(self.recorder.told()))
        fresh.replace(self._judged)

    async def _watch(self, line: asyncio.Task[Any]) -> None:
        """End the line if what drives or sees it has ended, or stands still: what it would say then says nothing."""
        before = time.monotonic()
        while not self.stuck:
            await asyncio.sleep(_LOOK_S)
            before, stood_s = time.monotonic(), time.monotonic() - before
            if stood_s < _STOOD_S:  # else all of this process stood still: a long judgement, a stopped machine
                self.stuck = self._what_is_stuck()
            else:
                self._recorded_at = before
                for load in self.loads:
                    load.turned_at = before
        while True:
            line.cancel()
            await asyncio.sleep(_LOOK_S)  # what the line waits for may swallow it

    def _what_is_stuck(self) -> str:
        assert self._recording is not None
        now = time.monotonic()
        if self._recording.done():
            return f"the recorder ended: {self._recording.exception()!r}"
        if now > self._recorded_at + STUCK_S:
            return f"the recorder stands still for {STUCK_S:g} s"
        for load in self.loads:
            if load.ended_with is not None:
                return f"the load ended: {load.ended_with!r}"
            if load.publishes and now > load.turned_at + STUCK_S:
                return f"the load stands still for {STUCK_S:g} s"
        return ""

    # --- processes ---

    def arguments(self, *words: str, servers: str = "", **more: object) -> list[str]:
        """A command line with this app's settings."""
        where: dict[str, object] = {"log__path": self.path}
        if self.place.servers:
            where = {"log__backend": "kafka", "kafka__bootstrap_servers": servers or self.place.servers}
        settings = {
            "app__name": self.name,
            "log__partitions": self.partitions,
            "telemetry__metrics_port": 0,
            "telemetry__log_level": "info",
            "worker__max_active_runs": 200,
            "log__checkpoint_bytes": "1GiB",  # nothing is trimmed under the judge, unless a line wants it
            **where,
            **self.settings,
            **more,
        }
        sets = [("--set", f"{name.replace('__', '.', 1)}={value}") for name, value in settings.items()]
        return [*words, *itertools.chain.from_iterable(sets)]

    def environment(self, **more: str) -> dict[str, str]:
        """Of workers: where the app finds its name and the sink."""
        return {
            "CHAOS_NAME": self.name,
            "CHAOS_SINK": str(self.sink.port),
            "CHAOS_FIRED": os.fspath(self.folder),
            "CHAOS_JUDGED": os.fspath(self._judged),
            "PYTHONPATH": os.fspath(ROOT),
            **more,
        }

    def spawn(
        self,
        *words: str,
        point: str | None = None,
        hit: int = 1,
        servers: str = "",
        environment: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
        **settings: object,
    ) -> Instance:
        """A worker. With a point it dies when it has passed it `hit` times. `words` are more of the command line."""
        armed = self._hand if point is None else {**self._hand, "CHAOS_POINT": point, "CHAOS_HIT": str(hit)}
        command = ["serve", os.fspath(APP), "--create-topics"] if self.place.servers else ["dev", os.fspath(APP)]
        instance = Instance(
            self.arguments(*command, *words, servers=servers, **{**settings, **(more or {})}),
            folder=self.folder,
            number=len(self.instances),
            environment=self.environment(**armed, **(environment or {})),
            module="tests.chaos.worker" if armed else "headrace",
        )
        self.instances.append(instance)
        return instance

    @property
    def now(self) -> Instance:
        """The newest worker."""
        return self.instances[-1]

    def fired_at(self, instance: Instance) -> bool:
        """Whether it died at its fault point."""
        return (self.folder / f"fired.{instance.pid}").exists() and instance.process.poll() == -signal.SIGKILL

    # --- load ---

    def load(self, *, ahead: int = 60, rate: float | None = RATE, **options: Any) -> Load:
        """A producer; `async with` makes it publish."""
        door = KafkaDoor(self.place.servers) if self.place.servers else EmbeddedDoor(self.path)
        load = Load(
            door,
            self.topic("in"),
            seed=self.seed,
            ahead=ahead,
            rate=rate,
            done=lambda: self.run_log.done + self.hanging,
            **options,
        )
        self.loads.append(load)
        return load

    async def works(self, effects: int, *, patience_s: float = 60.0) -> None:
        """Wait until so many more effects are in."""
        wanted = len(self.sink.effects()) + effects
        await eventually_now(
            lambda: len(self.sink.effects()) >= wanted, lambda: f"work: {self.story()}", patience_s=patience_s
        )

    async def works_more(self, worker: Instance, effects: int) -> None:
        """Wait for so many more effects of this worker."""
        wanted = self._effects_of(worker) + effects
        await eventually_now(lambda: self._effects_of(worker) >= wanted, self.story)

    async def passes(self) -> None:
        """Wait until the router has done all that stands in the source now."""
        ends = await self.recorder.source.ends(await self._inputs())

        async def passed() -> bool:
            committed = await self._committed()
            return all(committed.get(at, 0) >= end for at, end in ends.items())

        await eventually(passed, lambda: f"{ends} passed: {self.story()}")

    def _effects_of(self, worker: Instance) -> int:
        return sum(each.pid == worker.pid for each in self.sink.effects())

    def owner_of(self, partition: int) -> int:
        """The process that took a partition of the run log last; 0 if nobody has."""
        taken = self.run_log.taken(partition)
        return taken[-1].pid if taken else 0

    def busy(self) -> bool:
        """Whether there is work that is not done."""
        return sum(load.jobs for load in self.loads) > self.run_log.done + self.hanging

    async def works_again(self, worker: Instance) -> None:
        """Wait until this worker has begun an attempt."""
        await eventually_now(
            lambda: any(each.pid == worker.pid for each in reversed(self.sink.effects())),
            lambda: f"an attempt of worker {worker.pid}: {self.story()}",
        )

    # --- faults ---

    @asynccontextmanager
    async def fault(self, kind: str) -> AsyncIterator["Hit"]:
        """A fault is what the block does; say in the hit whether it met real work."""
        hit = Hit()
        began = time.time() * 1000
        try:
            yield hit
        finally:
            self.windows.append(Window(kind, began, time.time() * 1000, hit.fired))

    async def kill(self, instance: Instance, kind: str = "kill") -> bool:
        """kill -9; True if it hit a running attempt, or anything that the log does not know."""
        async with self.fault(kind) as hit:
            instance.kill()
            hit.fired = self.sink.interrupted(instance.pid) > 0 or self.busy()
        return hit.fired

    async def dies(self, instance: Instance, *, patience_s: float) -> bool:
        """Wait for a worker to die at its point; True if it did. One that has worked for so long and never passed it is killed."""
        began = time.time() * 1000
        seen, works = len(self.sink.effects()), False
        ends = time.monotonic() + _STARTS_S
        while instance.process.poll() is None and time.monotonic() < ends:
            if not works and any(each.pid == instance.pid for each in self.sink.effects()[seen:]):
                works, ends = True, time.monotonic() + patience_s
            await asyncio.sleep(0.02)
        if instance.process.poll() is None:
            instance.kill()
            self.windows.append(Window("point not passed", began, time.time() * 1000, fired=False))
            return False
        self.windows.append(Window("point", began, time.time() * 1000, self.fired_at(instance)))
        return self.fired_at(instance)

    async def ends(self, instance: Instance, *, patience_s: float = 60.0) -> int:
        """Its exit code, once it has ended; patience over, it is killed and that is the code."""
        ends = time.monotonic() + patience_s
        while (code := instance.process.poll()) is None:
            if time.monotonic() > ends:
                instance.kill()
            await asyncio.sleep(0.01)
        return code

    async def look_at_positions(self) -> None:
        """Note the committed positions, to be held against the log."""
        try:
            committed = await self._committed()
            ends = await self.recorder.source.ends(self._runs)
        except (KafkaError, OSError, HeadraceError):
            return  # the broker is what is away
        self.positions.append(Position(committed, ends))

    async def begins(self) -> dict[At, int]:
        """Where the run log begins, by partition."""
        return await self.recorder.source.begins(self._runs)

    @property
    def _runs(self) -> list[At]:
        """The run log's partitions: neither the recorder nor a broker may know them yet."""
        return [(self.topic("runs"), number) for number in range(self.partitions)]

    async def _inputs(self) -> list[At]:
        """The source's partitions. The recorder may not know them yet: work can be quicker than its first look."""
        topic = self.topic("in")
        return [(topic, number) for number in range(await self.recorder.source.partitions(topic))]

    async def _committed(self) -> dict[At, int]:
        return await self.recorder.source.committed(f"{self.name}.router", await self._inputs())

    async def _lag(self) -> Lag:
        return Lag(await self._committed(), await self.recorder.source.ends(await self._inputs()))

    # --- the end ---

    async def rest(self, *, patience_s: float = 120.0) -> None:
        """Wait until everything that was asked for is done. AssertionError: patience is over."""
        await eventually(self._settled, self.story, patience_s=patience_s)

    async def verdict(self, *, patience_s: float = 60.0, listed: bool = True) -> Verdict:
        """Wait until everything is done, or patience is over; then judge."""
        try:
            await self.rest(patience_s=patience_s)
        except AssertionError as error:
            found = judge(await self._evidence(await self._lag(), listed=False))
            return Verdict([Violation("I14", str(error)), *found.violations], found.figures)
        await self._no_more()
        return judge(await self._evidence(self._settled_at, listed=listed))

    async def _settled(self) -> bool:
        """Whether nothing is left to do. The run log is read after the positions: all that was made of what they passed stands there."""
        await self.recorder.refresh()  # waits for a broker that is away
        lag = await self._lag()
        await self.recorder.refresh()
        log = self.run_log
        poisoned = [each.id for each in log.runs.values() if each.parked == "poison" and each.id not in self.resumed]
        for id_ in poisoned:
            await self._resume(id_)
        if poisoned:
            return False  # open again, though the log had not said so when it was read
        jobs = [
            load.inputs[id_] for load in self.loads for id_ in load.acknowledged if load.inputs[id_].job is not None
        ]
        if log.open > self.hanging or log.done < len(jobs) - self.hanging:
            return False
        emitted = [f"{run.id}{step}" for run in log.runs.values() for step in run.emitted if not _refused(run.ended)]
        if not all(entry in log.left for entry in emitted):
            return False
        behind = [at for at, end in lag.ends.items() if lag.committed.get(at, 0) != end]
        await self._go_on_with(behind)
        self._settled_at = lag
        return not behind

    async def _go_on_with(self, behind: Sequence[At]) -> None:
        """A zombie's late commit may have moved a position back. Nothing depends on that, and the next record of its partition mends it: so one comes."""
        now = time.monotonic()
        self._behind_since = {at: self._behind_since.get(at, now) for at in behind}
        if all(window.kind == NO_FAULT for window in self.windows):
            return  # nobody became a zombie
        for at in behind:
            if at not in self._gone_on and now > self._behind_since[at] + _BEHIND_S:
                self._gone_on.add(at)
                await self.loads[0].put_unwanted(at[1])

    async def _resume(self, id_: str) -> None:
        """As an operator would: whatever was on trial when its owner was killed looked like poison."""
        self.resumed.append(id_)
        arguments = self.arguments("run", "resume", id_, "--no-wait")
        code, _, err = await asyncio.to_thread(run, arguments, folder=self.folder, environment=self.environment())
        assert code == 0, err

    async def _no_more(self) -> None:
        """What is late is still to come: look until two looks agree."""
        before = -1
        while before != (before := len(self.recorder.records(self.topic("results"))) + self.run_log.records):
            await asyncio.sleep(_LOOK_S)
            await self.recorder.refresh()

    async def _evidence(self, lag: Lag, *, listed: bool) -> Evidence:
        await self.recorder.refresh()
        rows: list[dict[str, Any]] | None = None
        if listed and not self.trims:
            rows = await self._run_list()
        return Evidence(
            inputs={id_: meant for load in self.loads for id_, meant in load.inputs.items()},
            tries={id_: put for load in self.loads for id_, put in load.tries.items()},
            acknowledged=frozenset(id_ for load in self.loads for id_ in load.acknowledged),
            source=self.recorder.records(self.topic("in")),
            log=self.run_log,
            results=self.recorder.records(self.topic("results")),
            letters=self.recorder.records(self.topic("in.dlq")),
            audit=self.recorder.records(self.topic("audit")),
            effects=self.sink.effects(),
            windows=self.windows,
            positions=self.positions,
            committed=lag.committed,
            source_ends={each: end for each, end in lag.ends.items() if end},
            listed=rows,
            missed=self.recorder.missed,
            bugs=[line for each in self.instances for line in bugs_in(each.stderr)],
            worker_clock=self.worker_clock,
        )

    async def _run_list(self) -> list[dict[str, Any]]:
        arguments = self.arguments("run", "list", "--limit", "0", "-o", "json")
        code, out, err = await asyncio.to_thread(run, arguments, folder=self.folder, environment=self.environment())
        assert code == 0, err
        return json.loads(out)

    def story(self) -> str:
        """What is open, and what the newest workers said last."""
        log = self.run_log
        ends = "\n".join(
            f"  worker {number}: exit {each.process.poll()}: {each.stderr[-700:]}"
            for number, each in list(enumerate(self.instances))[-2:]
        )
        waits = [
            f"{each.id} armed {each.armed} fired {sorted(each.fired)}"
            for each in log.runs.values()
            if not each.ended and not each.parked
        ]
        return f"settled: {log.done} of {sum(load.jobs for load in self.loads)} runs done, {log.open} open {waits[:3]}\n{ends}"


class Hit:
    """Whether a fault met something."""

    fired = False


def _refused(ended: list[tuple[int, str, str]]) -> bool:
    return bool(ended) and ended[0][1] == "failed"
