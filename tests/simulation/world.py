"""One simulation: a cluster on a broker, inputs, faults, then healing; and everything that was promised is looked at.

`simulate(plan)` gives a `Report`. It never raises for a broken promise: those are in the report.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import msgspec

from headrace.handlers.attempt import Attempt as AttemptNow
from headrace.service import checkpointer, idle_runs, loop_turn, waiting_starts
from headrace.service import owner as owner_limits
from headrace.service.engine import checkpoint
from headrace.service.fault_point import FaultPoint, armed
from headrace.service.replay_epochs import committed_epoch
from headrace.service.run_log_check import LogReplaced
from headrace.service.schedule_start import home_of
from headrace.service.settings import Settings
from headrace.service.source_position import SourcePosition
from headrace.topics.command import Cancel, Epoch, PauseSchedule, ResumeSchedule
from headrace.topics.errors import SettingsError
from headrace.topics.identity import ClientId
from headrace.topics.log import LogCorrupt, LogRecord, NewRecord, OffsetOutOfRange, Position, TopicPartition
from headrace.topics.new_event import NewEvent, encode_event
from headrace.topics.run_record import CommandRecord, encode
from headrace.topics.spec import TopicSpec
from tests.simulation.app import RESULTS, SOURCE, app_of, lacking_app_of, live_in
from tests.simulation.broker import NEVER, Broker, BrokerKnobs
from tests.simulation.clock import virtual
from tests.simulation.decider import Decider
from tests.simulation.instance import Instance, first_line, instance_at
from tests.simulation.judge import AUDIT, LETTERS, POSITIONS, RUNS, Effects, Judge
from tests.simulation.loop import Deadlock, KeptByPlace, Life, Livelock, SimLoop
from tests.simulation.operator import EVERY_S, Operator
from tests.simulation.plan import Arrival, AtPoint, Plan, Timed
from tests.simulation.refold import Refold
from tests.simulation.remade import Remade

MEMBERS = "sim.members"
_STILL_S = 200.0  # without a record landing while something is unfinished: it is stuck
_SLOW_S = 500.0  # after the faults; then records come many at a time: a log of a thousand is read anew at every death, record by record
_SETTLE_S = 20_000.0
_START_LOST = {
    OffsetOutOfRange.code,
    LogCorrupt.code,
}  # of a start that waits for room, and is asked for before its owner knows
_CALM_S = 30.0  # where records were lost: what they asked for may come once more, and nobody knows of it
_LEAVE_S = 120.0
_CLEAR_TURNS = 20_000
_LATE_MS = 5_000  # of a timer, once everything is healed

logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class Report(msgspec.Struct):
    seed: int
    violations: list[str]
    trace: str
    fired: dict[str, int]  # "fault at point": how often
    points: dict[str, int]
    virtual_s: float
    records: int
    stale: int
    effects: int
    compared: int
    turns: int
    children: int  # results that a parent got
    given_up: int  # children that nobody waited for any more
    dump: list[str]


class World:
    """What handlers, the nemesis and the judge share."""

    def __init__(self, plan: Plan, loop: SimLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.random = Random(plan.seed ^ 0x5EED)
        self.broker = Broker(self.random, plan.knobs)
        self.violations: list[str] = []
        self.judge = Judge(plan.partitions, self.violated, back_ms=plan.knobs.back_ms)
        self.effects = Effects()
        self.refold = Refold(self.broker, self.judge, self.violated)
        self.instances: list[Instance] = []
        self.lives: Counter[int] = Counter()
        self.fired: Counter[str] = Counter()
        self.points: Counter[FaultPoint] = Counter()
        self.trace = hashlib.blake2b(digest_size=8)
        self.healed_at = NEVER
        self.spoiled = False  # what is a known weakness where records are lost has come about: no verdict
        self.remade: Remade | None = None  # since somebody has made the run log anew
        self.landed_at = 0.0
        self._rewound_at = NEVER
        self._acting: set[tuple[str, str, str, int]] = set()  # attempts that run: instance, run, step, number
        self.closing = False
        self.over = False
        self._settings = Settings.model_validate({"app": {"name": "sim"}, **plan.settings})
        self._at_points = [fault for fault in plan.faults if isinstance(fault, AtPoint)]
        self._of_arrival: dict[int, tuple[int, int]] = {}
        self.operator = Operator(Random(plan.seed ^ 0x0BE7), self.judge, self._append_command, retries=plan.retries)
        self.judge.mended = self.operator.mended
        self._app, self._lacking = app_of(plan.schedules), lacking_app_of(plan.schedules)
        self.decider = Decider(Random(plan.seed ^ 0xDEC1), self.judge, self._append_command, self._later, self._log_ms)
        self._code: dict[int, str] = {}  # places in which the next process has other code, and which
        self.broker.refuses = _is_refused
        self.broker.appended = self._appended
        self.broker.committing = self._committing

    # --- told by others -----------------------------------------------------------------------------------------------

    def violated(self, what: str) -> None:
        """A promise was broken."""
        if not self.over and not self.spoiled and len(self.violations) < 20:
            self.violations.append(f"[{self.loop.now:.3f}s] {what}")

    def _appended(self, at: TopicPartition, records: Sequence[LogRecord]) -> None:
        self.landed_at = self.loop.now
        for record in records:
            self.trace.update(f"{at}/{record.offset}/{record.timestamp_ms}".encode())
            self.trace.update(record.value or b"")
        if self.remade is not None:
            self.remade.appended(at, records)
        else:
            if at.topic == RUNS and any(self.judge.is_stale(at, record) for record in records):
                self._spoil("stale checkpoint")
            self.judge.appended(at, records)

    def _spoil(self, how: str) -> None:
        """docs/guarantees.md says so among the open findings."""
        if not self.spoiled:
            self._count(how)
            self.spoiled = True

    def _committing(self, group: str, at: TopicPartition, position: Position) -> None:
        if self.remade is None:
            self.judge.committed(group, at, position)

    def began(self, attempt: AttemptNow, program: str, n: int, what: str) -> None:
        """A handler was called."""
        instance = instance_at(self.loop.place)
        if instance is None or instance.place.life is not Life.RUNNING or self.over:
            return
        self.trace.update(f"{self.loop.now}{instance.name}{attempt.idempotency_key}{attempt.number}".encode())
        if self.remade is not None:
            return
        run, step = attempt.run_id, attempt.task
        if what == "act" and not self.plan.swallow:
            acting = (instance.name, run, step, attempt.number)
            if acting in self._acting:
                self.violated(f"I5 {instance.name} begins attempt {attempt.number} of {run}{step}, which it is making")
            self._acting.add(acting)
        self.effects.began(run, step, attempt.idempotency_key, what, n)
        at = TopicPartition(RUNS, int(run.partition(".")[0]))
        owner = instance.owner_of(at.partition)
        token, nonce = (-1, "") if owner is None else (owner._tenure.token, owner._nonce)
        if not self.judge.sees(at.partition, token, nonce):
            return
        log_ms = self.broker.now_ms(self.broker.partitions[at])
        self.judge.attempt_begins(
            run, step, attempt.number, 0 if owner is None else owner.state.next_offset, log_ms, self._works
        )
        self.judge.call_begins(run, what, n, self.effects.call_of)

    def _works(self, name: str) -> bool:
        """Whether the instance runs, is not cut off, and the group knows it."""
        return any(
            each.name == name
            and each.running
            and each.place.life is Life.RUNNING
            and each.log.reachable
            and not each.log.lonely
            for each in self.instances
        )

    def ended(self, attempt: AttemptNow) -> None:
        """It is over, here."""
        instance = instance_at(self.loop.place)
        if instance is not None:
            self._acting.discard((instance.name, attempt.run_id, attempt.task, attempt.number))

    def dies(self, program: str) -> None:
        instance = instance_at(self.loop.place)
        if self.over or program in self.operator.cured or instance is None or instance.place.life is Life.DEAD:
            return  # one that was stopped in the middle of this turn dies all the same
        self._strike("crash", instance, self.random.uniform(0.1, 3.0), "poison")

    def answered(self, run: str, n: int, decision: str, by: str) -> None:
        """A run was told what became of what it asks."""
        instance = instance_at(self.loop.place)
        if instance is None or instance.place.life is not Life.RUNNING or self.over or self.remade is not None:
            return
        self.fired[decision] += 1
        self.judge.answered(run, n, decision, by)

    def is_cured(self, run: str) -> bool:
        return run in self.operator.mended

    def misfits(self, run: str, n: int) -> bool:
        instance, known = instance_at(self.loop.place), self.judge.runs.get(run)
        if instance is None or known is None or instance.code != "other_code":
            return False
        owner = instance.owner_of(known.at.partition)
        read_to = 0 if owner is None else owner.state.next_offset
        return any(
            offset < read_to and self.effects.call_of.get(f"{run}{step}") == ("act", n)
            for step, offset in known.settled.items()
        )

    def swallows(self, attempt: AttemptNow) -> bool:
        return not self.over and self.random.random() < self.plan.swallow

    # --- faults -------------------------------------------------------------------------------------------------------

    def at_point(self, point: FaultPoint) -> None:
        """The shell has come to a fault point."""
        instance = instance_at(self.loop.place)
        if instance is None or self.over or instance.place.life is not Life.RUNNING:
            return
        self.points[point] += 1
        if point is FaultPoint.FOLDED and self.random.random() < self.plan.refold and self.remade is None:
            for owner in instance.owners():
                self.refold.check(instance.name, owner, instance.watcher.truncated)
        if self.healed_at != NEVER:
            return
        for fault in self._at_points:
            if fault.point is point and fault.nth == self.points[point]:
                self._strike(fault.kind, instance, fault.for_s, f"{fault.kind} at {point}")

    def strike_timed(self, fault: Timed) -> None:
        """A fault's time has come."""
        if self.healed_at != NEVER:
            return
        instance = self._running(fault.target)
        if fault.kind == "leader":
            at = TopicPartition(RUNS, fault.target % self.plan.partitions)
            self._count("leader")
            self.broker.move_leader(at, fault.for_s)
        elif fault.kind == "forget":  # positions are lost, all of them
            self._count("forget")
            self.broker.positions[POSITIONS].clear()
        elif fault.kind == "rewind":
            self.rewind(fault)
        elif fault.kind == "truncate":
            self.truncate(TopicPartition(RUNS, fault.target % self.plan.partitions), int(fault.amount), fault.for_s)
        elif fault.kind == "remake":
            self.remake()
        elif fault.kind == "join":
            self._count("join")
            self.start(self.plan.instances + fault.target)
        elif instance is not None:
            self._strike(fault.kind, instance, fault.for_s, fault.kind, fault.amount)

    def _running(self, number: int) -> Instance | None:
        return next((each for each in self.instances if each.number == number and each.running), None)

    def _count(self, what: str) -> None:
        self.fired[what] += 1
        self.trace.update(f"{self.loop.now}{what}".encode())

    def _strike(self, kind: str, instance: Instance, for_s: float, what: str, amount: float = 0.0) -> None:
        self._count(what)
        now = self.loop.now
        match kind:
            case "crash":
                instance.crash()
                if self.random.random() < self.plan.told:
                    self.loop.at(now + self.random.uniform(0, 0.3), self.broker.group(MEMBERS).expel_dead)
                self.loop.at(now + for_s, self._restart, instance)
            case "stop":
                instance.pause()
                self.loop.at(now + for_s, instance.go_on)
            case "cut":
                instance.log.partitioned_until = max(instance.log.partitioned_until, now + for_s)
            case "outage":
                self.broker.away_until = max(self.broker.away_until, now + for_s)
            case "leader":
                for number in range(self.plan.partitions):
                    self.broker.move_leader(TopicPartition(RUNS, number), min(for_s, 5.0))
            case "leave":
                if not instance.leaving:
                    instance.leave()
                    self.loop.at(now + for_s, self._restart, instance)
            case "lose" | "unheard" | "late":
                instance.log.next_batch = kind
            case "other_code" | "lacking":
                self._code[instance.number] = kind
                instance.leave()
                self.loop.at(now + 0.5, self._restart, instance)
                self.loop.at(now + 0.5 + for_s, self._good_code, instance.number)
            case "skew":
                instance.place.skew_s += amount
            case "jump":  # and back
                instance.place.skew_s += amount
                self.loop.at(now + for_s, self._jump_back, instance, amount)
            case "stall":  # the loop is blocked
                instance.pause()
                self.loop.at(now + min(for_s, 3.0), instance.go_on)
            case _:
                raise ValueError(kind)

    def _jump_back(self, instance: Instance, amount: float) -> None:
        instance.place.skew_s -= amount

    def _good_code(self, number: int) -> None:
        self._code.pop(number, None)
        instance = self._running(number)
        if instance is not None and instance.code and not instance.leaving:
            instance.leave()
            self.loop.at(self.loop.now + 0.5, self._restart, instance)

    def _restart(self, instance: Instance) -> None:
        """A new process in its place. One that is still leaving may run beside it."""
        others = [each for each in self.instances if each.number == instance.number and each is not instance]
        if not self.closing and not any(each.running and not each.leaving for each in others):
            self.start(instance.number)

    def start(self, number: int) -> Instance:
        life = self.lives[number]
        self.lives[number] += 1
        instance = Instance(
            self.loop,
            self.broker,
            self._settings,
            self.plan.partitions,
            number,
            life,
            self._code.get(number, ""),
            self._lacking if self._code.get(number) == "lacking" else self._app,
            checks=self.remade is not None,
        )
        instance.place.skew_s = self.random.choice((0.0, 0.0, -0.8, 0.3))
        self.instances.append(instance)
        return instance

    def heal(self) -> None:
        """Everything is well again, and everybody is there."""
        self.healed_at = self.loop.now
        knobs = self.broker.knobs
        self.broker.knobs = BrokerKnobs(
            latency_s=knobs.latency_s, batch_records_max=knobs.batch_records_max, prefetch=knobs.prefetch, gap=knobs.gap
        )
        self.broker.away_until = NEVER
        for partition in self.broker.partitions.values():
            partition.leaderless_until = NEVER
        self._code.clear()
        for instance in self.instances:
            instance.log.partitioned_until = NEVER
            instance.log.next_batch = ""
            instance.go_on()
            if instance.code and instance.running and not instance.leaving:
                instance.leave()
        for number in range(self.plan.instances):
            if not any(each.running and not each.leaving for each in self.instances if each.number == number):
                self.start(number)

    def rewind(self, fault: Timed) -> None:
        """Somebody reads the source topic anew, as `headrace topic rewind` does it: the run log first, then the positions. One at a time."""
        if self.loop.now <= self._rewound_at:
            return
        self._count("rewind")
        sources = [TopicPartition(SOURCE, number) for number in range(self.plan.sources)]
        ends = [self.broker.partitions[at].end for at in sources]
        offsets = tuple(int(end * self.random.choice((0.0, 0.5, 1.0))) for end in ends)
        self.judge.begins_epoch(offsets)
        epoch = self.judge.epoch
        said = encode(
            CommandRecord(id=ClientId(f"rewind/{epoch}"), body=Epoch(topic=SOURCE, epoch=epoch, offsets=offsets))
        )
        at_s = self.loop.now
        for number in range(self.plan.partitions):
            at_s += self.random.uniform(0, min(fault.for_s, 3.0))
            self.loop.at(at_s, self._append_command, TopicPartition(RUNS, number), NewRecord(said))
        positions = {
            at: SourcePosition(offset, clean=True, epoch=epoch).position()
            for at, offset in zip(sources, offsets, strict=True)
        }
        hint = {TopicPartition(SOURCE, 0): committed_epoch(epoch, offsets)}
        self.loop.at(at_s + 0.01, self.broker.commit, "sim.epochs", hint)
        self.loop.at(at_s + 0.02, self.broker.commit, POSITIONS, positions)
        self._rewound_at = at_s + 0.02

    def truncate(self, at: TopicPartition, count: int, away_s: float) -> None:
        """A partition of the run log loses so many records: not those that its checkpoint lies in, and not its first announce. It would be another log."""
        partition = self.broker.partitions[at]
        begun = [token for number, token in self.judge.announced if number == at.partition]
        if self.remade is not None or not partition.records or not begun:
            return
        end = max(partition.safe_end, min(begun) + 1, partition.records[-min(count, len(partition.records))].offset)
        if partition.records[-1].offset < end:
            return
        self._count("truncate")
        lost = self.broker.truncate(at, end, away_s)
        self.judge.lost(at, lost)
        owners = [owner for each in self.instances if each.running for owner in each.owners() if owner.at == at]
        self.refold.lost(at, owners)

    def remake(self) -> None:
        """Somebody deletes the run log and makes it again, while every partition of it is worked on."""
        working = [owner.at.partition for each in self.instances if each.running for owner in each.owners()]
        alive = all(each.place.life is Life.RUNNING and not each.leaving for each in self.instances if each.running)
        live = all(owner._tenure.open for each in self.instances if each.running for owner in each.owners())
        if self.remade is None and alive and live and sorted(working) == list(range(self.plan.partitions)):
            self._count("remake")
            self.remade = Remade(self)
            self.broker.make_anew(RUNS)
            self.heal()

    # --- inputs -------------------------------------------------------------------------------------------------------

    def arrive(self, index: int, arrival: Arrival) -> None:
        at = TopicPartition(SOURCE, arrival.partition)
        program = arrival.program
        if arrival.kind == "broken":
            record = NewRecord(
                b"{nothing", key=b"k", headers=(("ce_specversion", b"1.0"), ("content-type", b"application/json"))
            )
        else:
            record = encode_event(
                NewEvent(
                    id=program.id,
                    source="sim",
                    type="queue" if arrival.kind == "deadly" else arrival.kind,
                    data=msgspec.json.encode(program),
                    key=arrival.record_key,
                )
            )
        group = None
        if arrival.copies:
            self._count("redrive")
            group = f"{LETTERS}/{arrival.partition}/{index}"
            headers = (("headrace-redrive", b"1"), ("headrace-redrive-of", group.encode()))
            record = msgspec.structs.replace(record, headers=record.headers + headers)
        partition = self.broker.partitions[at]
        self.broker.knobs, knobs = (
            BrokerKnobs(),
            self.broker.knobs,
        )  # without gaps: the input must be known before it lands
        self.judge.comes(at.partition, partition.end, arrival.kind, program, group)
        self._of_arrival[index] = (at.partition, partition.end)
        self.broker.append(at, [record])
        self.broker.knobs = knobs

    def cancel(self, index: int) -> None:
        """A client's command, to a run that is known."""
        where = self._of_arrival.get(index)
        for run in list(self.judge.runs.values()):
            event = run.start.event
            if event is not None and (event.partition, event.offset) == where and run.ended is None:
                self._count("cancel")
                command = CommandRecord(id=ClientId(f"cancel/{run.id}"), body=Cancel(run=run.id, reason="simulated"))
                for _ in range(self.random.choice((1, 1, 2))):  # a client may ask twice
                    self.broker.append(run.at, [NewRecord(encode(command))])

    def _pause(self, command: PauseSchedule | ResumeSchedule, number: int) -> None:
        """A client's command; somebody who pauses a schedule that nobody has seen yet has no effect."""
        self._count("resume schedule" if isinstance(command, ResumeSchedule) else "pause schedule")
        at = TopicPartition(RUNS, home_of(command.schedule, self.plan.partitions))
        identity = ClientId(f"{type(command).__name__}/{command.schedule}/{number}")
        self._append_command(at, NewRecord(encode(CommandRecord(id=identity, body=command))))

    def _append_command(self, at: TopicPartition, record: NewRecord) -> None:
        self.broker.append(at, [record])

    def _later(self, wait_s: float, call: Callable[[], None]) -> None:
        self.loop.at(self.loop.now + wait_s, lambda: None if self.over or self.closing else call())

    def _log_ms(self, at: TopicPartition) -> float:
        return self.broker.now_ms(self.broker.partitions[at])

    def _operate(self) -> None:
        """Somebody looks."""
        if not (self.over or self.closing):
            self.operator.look()
            self.decider.look()
            self.loop.at(self.loop.now + EVERY_S, self._operate)

    # --- the whole ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        plan = self.plan
        for name, partitions in (
            (RUNS, plan.partitions),
            (SOURCE, plan.sources),
            (RESULTS, 2),
            (LETTERS, plan.sources),
            (AUDIT, 1),
            ("sim.dlq", 1),
        ):
            self.broker.make(TopicSpec(name=name, partitions=partitions, timestamp_type="LogAppendTime"))
        group = self.broker.group(MEMBERS)
        group.session_s, group.late_s = plan.session_s, plan.placements_late_s
        for index, arrival in enumerate(plan.arrivals):
            for at_s in (arrival.at_s, *arrival.copies):
                self.loop.at(at_s, self.arrive, index, arrival)
        for cancellation in plan.cancellations:
            self.loop.at(cancellation.at_s, self.cancel, cancellation.arrival)
        for fault in plan.faults:
            if isinstance(fault, Timed):
                self.loop.at(fault.at_s, self.strike_timed, fault)
        for id_, pauses in zip(self._app.schedules, [each.pauses for each in plan.schedules], strict=True):
            for number, (at_s, for_s) in enumerate(pauses):
                self.loop.at(at_s, self._pause, PauseSchedule(id_), number)
                self.loop.at(at_s + for_s, self._pause, ResumeSchedule(id_), number)
        for number in range(plan.instances):
            self.start(number)
        self.loop.at(EVERY_S, self._operate)
        await asyncio.sleep(plan.chaos_s)
        if self.remade is not None:
            await self.remade.settle()
            await self._leave()
            return
        self.heal()
        await self._settle()
        if not self.violations:
            await self._leave()
        if not self.violations and not self.spoiled:
            self._judge()

    async def _settle(self) -> None:
        began = self.loop.now
        while not self.violations and not self.spoiled:
            await asyncio.sleep(1.0)
            self.look_at_instances()
            unfinished = (
                self.judge.unfinished() or self.operator.pending() or ([] if self.fired["forget"] else self._behind())
            )
            now = self.loop.now
            if not unfinished and (now - began > _CALM_S or not self.fired["truncate"]):
                return
            if now - began > _SLOW_S:
                self.broker.knobs.batch_records_max = 500
            if now - max(self.landed_at, began) > _STILL_S or now - began > _SETTLE_S:
                self.violated(
                    f"I14 nothing has moved for {now - self.landed_at:.0f} s, and is not finished: {'; '.join(unfinished[:5])}"
                )

    def look_at_instances(self) -> None:
        """Nobody stops or ends by itself."""
        for instance in self.instances:
            for told in instance.watcher.stops:
                if self.remade is not None and told.code == LogReplaced.code:
                    continue
                if told.topic == RUNS and told.code in _START_LOST and self.judge.has_lost(told.partition):
                    self._spoil("start lost")
                self.violated(
                    f"P1 {instance.name} stopped {told.topic}/{told.partition} at {told.offset}: {told.code} {told.message}"
                )
            for bug in instance.watcher.bugs:
                self.violated(f"P1 {instance.name} gave a checkpoint of {bug.partition} up: {bug.code} {bug.message}")
            refused = self.remade is not None and isinstance(instance.error, SettingsError)
            if instance.place.life is Life.RUNNING and instance.task.done() and not instance.leaving and not refused:
                what = "" if instance.error is None else first_line(instance.error)
                self.violated(f"P1 {instance.name} ended by itself: {what}")
        for failure in self.loop.failures:
            error = failure.get("exception")
            self.violated(f"P1 {failure.get('message')}: {'' if error is None else first_line(error)}")

    def _behind(self) -> list[str]:
        """Source positions that have not come to the end."""
        found: list[str] = []
        for number in range(self.plan.sources):
            at = TopicPartition(SOURCE, number)
            reached = self.judge.reached[self.judge.epoch, number]  # a zombie may have moved it back since
            end = self.broker.partitions[at].end
            if reached < end:
                found.append(f"I14 {at} was committed up to {reached}, and ends at {end}")
        return found

    async def _leave(self) -> None:
        """Everybody leaves in good order."""
        self.closing = True
        for instance in self.instances:
            if instance.running and not instance.leaving:
                instance.leave()
        until = self.loop.now + _LEAVE_S
        while any(instance.running for instance in self.instances):
            await asyncio.sleep(0.5)
            if self.loop.now > until:
                left = [instance.name for instance in self.instances if instance.running]
                self.violated(f"P1 {left} did not end within {_LEAVE_S} s of being asked to")
                return
        self.look_at_instances()
        for instance in self.instances:
            refused = self.remade is not None and isinstance(instance.error, SettingsError)
            if instance.place.life is Life.RUNNING and instance.error is not None and not refused:
                self.violated(f"P1 {instance.name} left with {first_line(instance.error)}")

    def _judge(self) -> None:
        self.judge.at_the_end(self.effects, faults=bool(self.plan.faults))
        for number in range(self.plan.partitions):
            at = TopicPartition(RUNS, number)
            state = _state(self.plan, at)
            self.refold.forward(state, self.broker.partitions[at].end)
            if set(state.runs) != self.judge.open_runs(number):
                self.violated(f"I10 {at}: open runs {set(state.runs)}, by the log {self.judge.open_runs(number)}")
            if state.approvals:
                self.violated(f"I8 {at}: still asked: {list(state.approvals)}")
            if state.outbox:
                self.violated(f"I14 {at}: still in the outbox: {list(state.outbox)}")
        healed_ms = int(self.broker.now_ms() - (self.loop.now - self.healed_at - 60) * 1000)
        roomy = self._settings.worker.max_active_runs > len(self.judge.runs)  # who sleeps asks for room before it wakes
        roomy = roomy and not self.fired["poison"] and not self.operator.did  # and on trial for its turn
        for run in self.judge.runs.values():
            for fired, at_ms in run.fired:
                if at_ms < fired.due_at_ms:
                    self.violated(f"I7 {run.id}{fired.step} fired {fired.due_at_ms - at_ms} ms early")
                elif roomy and fired.due_at_ms > healed_ms and at_ms - fired.due_at_ms > _LATE_MS:
                    self.violated(f"I7 {run.id}{fired.step} fired {at_ms - fired.due_at_ms} ms late")

    def dump(self) -> list[str]:
        """What everybody waits for."""
        lines = [f"at {self.loop.now:.3f} s, healed at {self.healed_at:.3f} s, last record at {self.landed_at:.3f} s"]
        for instance in self.instances:
            lines.append(f"{instance.place} {'done' if instance.task.done() else ''} skew {instance.place.skew_s} s")
            if not instance.running:
                continue
            for owner in instance.owners():
                end = self.broker.partitions[owner.at].end
                lines.append(f"  {owner.at} read to {owner.state.next_offset} of {end}; {describe(owner)}")
        lines += self.judge.unfinished()
        return lines


def _is_refused(at: TopicPartition, record: NewRecord) -> bool:
    return at.topic == RESULTS and b'"refused":true' in (record.value or b"")


def describe(owner: Any) -> str:
    """An owner's inner state, as far as it has these names."""
    found = [f"{name[1:]} {getattr(owner, name)}" for name in ("_stage", "_nonce") if hasattr(owner, name)]
    tenure = getattr(owner, "_tenure", None)
    if tenure is not None:
        found.append(f"token {tenure.token}")
    runs = getattr(owner, "runs", None)
    found += [
        f"{run.state.id} calls {list(run.calls)} delayed {run.delayed} held {run.held} timers {list(run.timers)}"
        for run in getattr(runs, "live", {}).values()
    ]
    return "; ".join(found)


def _state(plan: Plan, at: TopicPartition) -> Any:
    from headrace.service.engine.fold import new_state

    return new_state(topic=at.topic, partition=at.partition, partitions=plan.partitions, client_retention_ms=86_400_000)


@contextmanager
def tightened(plan: Plan) -> Iterator[None]:
    """The shell's own limits, as the plan says: checkpoints as often, and as little kept awake. What it keeps for a loop it keeps for a process."""
    limits: list[tuple[Any, str, object]] = [
        (checkpointer, "EVERY_S", 0.0),
        (checkpointer, "LOG_BYTES_MIN", plan.checkpoint_bytes),
        (checkpointer, "SIZE_FACTOR", plan.checkpoint_factor),
        (owner_limits, "_LIVE_MAX", plan.live_max),
        (idle_runs, "_RESTING_MAX", plan.resting_max),
        (waiting_starts, "_UNPACKED_MAX", plan.unpacked_max),
        (loop_turn, "_lines", KeptByPlace()),
    ]
    if plan.chunk_bytes < checkpoint.CHUNK_BYTES:
        limits += [
            (checkpoint, "CHUNK_BYTES", plan.chunk_bytes),
            (checkpoint, "_PART_BYTES", plan.chunk_bytes // 2),
        ]
    before = [(module, name, getattr(module, name)) for module, name, _ in limits]
    for module, name, value in limits:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def simulate(plan: Plan, hook: Callable[[World], None] = lambda _: None) -> Report:
    """Run one simulation to its end."""
    loop = SimLoop(Random(plan.seed ^ 0x100B), shuffled=plan.shuffled, busy_s=plan.busy_s)
    asyncio.set_event_loop(loop)
    world = World(plan, loop)
    live_in(world)
    hook(world)
    dump: list[str] = []
    try:
        with virtual(), armed(world.at_point), tightened(plan):
            try:
                loop.run_until_complete(world.run())
            except Deadlock:
                world.violated("I13 everybody waits, and nothing will ever happen")
            except Livelock:
                world.violated(f"I14 {loop.turns} turns of the loop, and no end")
            if world.violations:
                dump = world.dump()
            virtual_s, turns = loop.now, loop.turns
            world.over = True
            _clear_away(world)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return Report(
        seed=plan.seed,
        violations=world.violations,
        trace=world.trace.hexdigest(),
        fired=dict(world.fired),
        points={str(point): count for point, count in world.points.items()},
        virtual_s=virtual_s,
        records=world.judge.records,
        stale=world.judge.stale,
        effects=world.effects.count,
        compared=world.refold.compared,
        turns=turns,
        children=world.judge.family.told,
        given_up=world.judge.family.given_up,
        dump=dump,
    )


def _clear_away(world: World) -> None:
    """Let every task end: also those of dead processes, whose coroutines would otherwise be torn apart by the garbage collector."""
    left = [instance for instance in world.instances if not instance.task.done()]
    for instance in left:
        instance.clear_away()

    async def wait() -> None:
        while any(not instance.task.done() for instance in left):
            await asyncio.sleep(0.1)
            if world.loop.turns > turns + _CLEAR_TURNS:
                return

    turns = world.loop.turns
    if left:
        with suppress(Deadlock, Livelock):  # the verdict stands
            world.loop.run_until_complete(wait())
    for task in asyncio.all_tasks(world.loop):
        task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
