"""A plan: everything that a simulation is told beforehand, drawn from one seed. What is left to chance while it runs comes from the same seed.

A plan is plain data, so that a failing one can be printed, cut down (`minimise.py`) and kept.
"""

from random import Random

import msgspec

from headrace.service.fault_point import FaultPoint
from headrace.topics.schedule import Misfire, Overlap
from tests.simulation.app import WORKFLOWS
from tests.simulation.broker import BrokerKnobs
from tests.simulation.program import Program, Taste, ask, drawn, with_children
from tests.simulation.scheduled import Scheduled


class Timed(msgspec.Struct, tag="timed"):
    """At a time. `target` is an instance (or a partition); `for_s` until it is mended; `amount` is for clocks."""

    at_s: float
    kind: str
    target: int = 0
    for_s: float = 0.0
    amount: float = 0.0


class AtPoint(msgspec.Struct, tag="point"):
    """When any instance comes to this point for the `nth` time."""

    point: FaultPoint
    nth: int
    kind: str
    for_s: float = 0.0


Fault = Timed | AtPoint

LOST_KINDS = ("lose", "unheard", "late")
"""What becomes of the next batch that the instance sends to the run log: it is never there, or nobody says so, or it comes when its sender has given up."""

POINT_KINDS = ("crash", "crash", "crash", "stop", "cut", "outage", "leader", "leave", *LOST_KINDS)
TIMED_KINDS = (
    "crash",
    "crash",
    "stop",
    "stop",
    "cut",
    "outage",
    "leader",
    "leader",
    "leave",
    "skew",
    "jump",
    "stall",
    "forget",
    "join",
    "other_code",
    "lacking",
    *LOST_KINDS,
)


class Arrival(msgspec.Struct):
    """A source record. `kind`: a key of `app.WORKFLOWS`, or `unmatched`, `broken` or `deadly`. `record_key` may differ from the program's key."""

    at_s: float
    kind: str
    partition: int
    record_key: str | None
    program: Program
    copies: list[
        float
    ] = []  # it is a redriven dead letter, and comes again at these times: sent twice, or by two people


class Cancellation(msgspec.Struct):
    """A client cancels the run of an arrival (by its place in the list), if it is open."""

    at_s: float
    arrival: int


class Plan(msgspec.Struct, kw_only=True):
    """Fields that are added have a default: plans are kept for years."""

    seed: int
    instances: int
    partitions: int
    sources: int
    shuffled: bool
    busy_s: float
    knobs: BrokerKnobs
    settings: dict[str, dict[str, object]]
    checkpoint_bytes: int  # of log, after which one is made: LOG_BYTES_MIN
    checkpoint_factor: int  # and so many times the size of the last one: SIZE_FACTOR
    chunk_bytes: int = 512 << 10  # of a checkpoint
    live_max: int = 256  # runs that a replay keeps unpacked: _LIVE_MAX
    resting_max: int = 2_000  # live runs of a process that only wait: _RESTING_MAX
    unpacked_max: int = 1_000  # starts without room that are kept unpacked: _UNPACKED_MAX
    session_s: float
    told: float  # the chance that a death is told to the group at once
    placements_late_s: float
    swallow: float
    refold: float  # the chance that a step is followed by a refold of the whole partition
    chaos_s: float
    arrivals: list[Arrival]
    cancellations: list[Cancellation]
    faults: list[Fault]
    retries: float = 0.0  # the chance that an operator begins a new run in place of one that failed
    schedules: list[Scheduled] = []


RARE = ("truncate", "remake")
"""What a seed has now and then."""
PROFILES = (*RARE, "wide", "tiny", "crowd", "stops", "storm")
"""What a seed may be asked to have on top of what it draws. The rest are other scales."""


def plan_of(seed: int, profile: str = "") -> Plan:
    """Draw the plan of a seed."""
    plan = _drawn(seed)
    plan.schedules = _schedules(Random(f"schedules/{seed}"), plan.chaos_s)
    # from dice of its own: what was drawn before stays as it was
    _redrive(Random(f"redrives/{seed}"), plan)
    random = Random(f"losses/{seed}")
    chance = random.random()
    if not profile and plan.faults:
        profile = "remake" if chance < 0.005 else "truncate" if chance < 0.02 else ""
    match profile:
        case "truncate":
            _truncate(random, plan)
        case "remake":
            at_s = random.uniform(0.1, 1) * plan.chaos_s
            plan.faults.append(Timed(at_s, "remake"))
        case "":
            pass
        case _:
            _scaled(random, plan, profile)
    _give_children(Random(f"children/{seed}"), plan)
    _ask(Random(f"approvals/{seed}"), plan)
    return plan


def _give_children(random: Random, plan: Plan) -> None:
    """Some runs start others. Not where logs lose records that were acknowledged: what is begun by one that is lost has the name of what comes in its place."""
    if random.random() < 0.5 or any(fault.kind in RARE for fault in plan.faults):
        return
    calm = not any(arrival.program.is_poison or arrival.program.deadly for arrival in plan.arrivals)
    for arrival in plan.arrivals:
        if arrival.kind in {"free", "queue", "both"} and random.random() < 0.6:
            with_children(random, arrival.program, calm=calm)


def _ask(random: Random, plan: Plan) -> None:
    """Some programs ask people."""
    if random.random() < 0.6:
        return
    for arrival in plan.arrivals:
        if random.random() < 0.5:
            ask(random, arrival.program)


def _redrive(random: Random, plan: Plan) -> None:
    """Some of what arrives comes from the dead letters, and now and then more than once."""
    if random.random() < 0.6:
        return
    for arrival in plan.arrivals:
        if arrival.kind in WORKFLOWS and random.random() < 0.4:
            last_s = max(arrival.at_s, plan.chaos_s)
            arrival.copies = [random.uniform(arrival.at_s, last_s) for _ in range(random.choice((1, 1, 2, 3)))]


def _schedules(random: Random, chaos_s: float) -> list[Scheduled]:
    """Those of two seeds in five."""
    return [
        Scheduled(
            random.choice((1, 1, 2, 7)),
            random.choice(list(Misfire)),
            random.choice(list(Overlap)),
            random.choice((0, 0, 300, 3_000)),
            chaos_s * random.uniform(0.5, 1.3),
            [(random.uniform(0, chaos_s), random.uniform(0, chaos_s / 3))] if random.random() < 0.3 else [],
        )
        for _ in range(random.choice((0, 0, 0, 1, 2)))
    ]


def _scaled(random: Random, plan: Plan, profile: str) -> None:
    """Other sizes than seeds draw."""
    match profile:
        case "wide":
            plan.instances, plan.partitions = random.choice((6, 9, 12)), random.choice((8, 16, 24))
        case "tiny":
            plan.settings["worker"] |= {"max_active_runs": 1, "max_queued_bytes": "1KiB", "idle_after": "0s"}
            plan.settings["router"] |= {"max_uncommitted": random.choice((1, 2, 3))}
            plan.settings["log"] |= {"group_commit_bytes": "1KiB"}
            plan.checkpoint_bytes, plan.chunk_bytes = random.choice((0, 200, 2_000)), random.choice((100, 300))
            plan.live_max, plan.resting_max, plan.unpacked_max = 0, 0, 0
            plan.knobs.batch_records_max = random.choice((1, 2))
        case "crowd":
            trouble = bool(plan.faults)
            taste = Taste(
                size=3,
                hang=0.05,
                refused=0.1,
                poison=0.05 * trouble,
                flip=0.2 * trouble,
                deadly=0.02 * trouble,
                ending=0.1,
            )
            plan.arrivals = _arrivals(random, plan.sources, plan.chaos_s, taste, random.choice((30, 50)))
            plan.cancellations = [
                Cancellation(plan.arrivals[index].at_s + random.uniform(0, 5.0), index)
                for index in random.sample(range(len(plan.arrivals)), 15)
            ]
        case "stops":
            plan.session_s = random.choice((1.0, 3.0))
            plan.faults += [
                Timed(
                    random.uniform(0, plan.chaos_s),
                    random.choice(("stop", "stop", "cut", "stall", "outage", "late")),
                    random.randrange(plan.instances),
                    random.choice((2.0, 8.0, 25.0, 90.0)) * random.uniform(0.5, 1.5),
                )
                for _ in range(random.choice((6, 12, 20)))
            ]
        case _:
            plan.faults += _faults(random, plan.seed, plan.chaos_s, plan.instances, plan.partitions)
            plan.faults += [
                Timed(
                    random.uniform(0, plan.chaos_s),
                    random.choice(("join", "leave", "crash", "leave", "leader", "forget", *LOST_KINDS)),
                    random.randrange(plan.instances),
                    _for_s(random),
                )
                for _ in range(random.choice((10, 20, 40)))
            ]


def _truncate(random: Random, plan: Plan) -> None:
    """Run logs lose their tails. Nothing is read anew beside that: who had heard of it may not have, all at once."""
    plan.faults[:] = [fault for fault in plan.faults if fault.kind != "rewind"]
    for _ in range(random.choice((1, 1, 2, 4))):
        count = random.choice((1, 2, 5, 20, 1_000))
        away_s = random.uniform(1.0, 5.0)
        partition = random.randrange(plan.partitions)
        plan.faults.append(Timed(random.uniform(0, plan.chaos_s), "truncate", partition, away_s, count))


def _drawn(seed: int) -> Plan:
    random = Random(seed)
    chaos_s = random.choice((5.0, 20.0, 60.0))
    quiet = random.random() < 0.1  # no faults at all: nothing may come twice
    partitions = random.choice((1, 2, 3, 4, 6))
    sources = random.randint(1, 3)
    instances = random.choice((1, 2, 2, 3, 3, 4))
    taste = Taste(
        size=random.choice((1, 3, 6)),
        hang=random.choice((0.0, 0.0, 0.1)),
        refused=random.choice((0.0, 0.0, 0.0, 0.2, 0.6)),
        poison=0.0 if quiet else random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.15, 0.4)),
        flip=0.0 if quiet else random.choice((0.0, 0.0, 0.4)),
        deadly=0.0 if quiet else random.choice((0.0, 0.0, 0.0, 0.1)),
        ending=random.choice((0.08, 0.08, 0.3)),
    )
    arrivals = _arrivals(random, sources, chaos_s, taste)
    return Plan(
        seed=seed,
        instances=instances,
        partitions=partitions,
        sources=sources,
        shuffled=random.random() < 0.7,
        busy_s=random.choice((0.0, 0.0, 1e-6, 0.004)),
        knobs=_knobs(random, quiet=quiet),
        settings=_settings(random),
        checkpoint_bytes=random.choice((0, 500, 4_000, 20_000, 4 << 20)),
        checkpoint_factor=random.choice((2, 2, 4)),  # with less, checkpoints would be made of checkpoints, for ever
        chunk_bytes=random.choice((300, 1_000, 512 << 10)),
        live_max=random.choice((0, 2, 256)),
        resting_max=random.choice((0, 1, 2_000)),
        unpacked_max=random.choice((0, 2, 1_000)),
        session_s=random.choice((1.0, 3.0, 10.0)),
        told=random.choice((0.0, 0.7, 1.0)),
        placements_late_s=random.choice((0.0, 0.2, 3.0)),
        swallow=random.choice((0.0, 0.0, 0.3)),
        refold=random.choice((0.05, 0.3, 1.0)),
        chaos_s=chaos_s,
        arrivals=arrivals,
        cancellations=[
            Cancellation(arrivals[index].at_s + random.choice((0.1, 1.0, 5.0)) * random.random(), index)
            for index in (random.randrange(len(arrivals)) for _ in range(random.choice((0, 0, 1, 3, 6))))
        ],
        faults=[]
        if quiet
        else _faults(random, seed, chaos_s, instances, partitions) + _rewinds(random, chaos_s, arrivals),
        retries=random.choice((0.0, 0.5, 1.0)),
    )


def _knobs(random: Random, *, quiet: bool) -> BrokerKnobs:
    trouble = 0.0 if quiet else random.choice((0.0, 0.003, 0.02, 0.08))

    def some() -> float:
        return trouble * random.choice((0, 1, 1, 2))

    return BrokerKnobs(
        latency_s=random.choice(((0.0001, 0.001), (0.0002, 0.02), (0.001, 0.2))),
        slow=random.choice((0.0, 0.0, 0.01, 0.1)),
        slow_s=random.choice((0.05, 2.0)),
        lost=some(),
        unanswered=some(),
        late=some(),
        late_s=random.choice((1.0, 20.0)),
        away=some(),
        twice=some(),
        gap=random.choice((0.0, 0.0, 0.2)),
        back_ms=random.choice((0, 5, 500, 3_000)),
        patience_s=random.choice((0.5, 3.0, 15.0)),
        batch_records_max=random.choice((1, 3, 20, 500)),
        prefetch=random.random() < 0.7,
    )


def _settings(random: Random) -> dict[str, dict[str, object]]:
    return {
        "worker": {
            "handoff_grace": random.choice(("0s", "200ms", "3s", "10s")),
            "shutdown_grace": "30s",
            "max_active_runs": random.choice((1, 2, 8, 4_000)),
            "idle_after": random.choice(("0s", "20ms", "1s", "1s", "1h")),
            "max_queued_bytes": random.choice(("2KiB", "64MiB", "64MiB")),
        },
        "router": {"max_uncommitted": random.choice((2, 20, 10_000))},
        "log": {"group_commit_bytes": random.choice(("1KiB", "512KiB", "512KiB"))},
    }


def _arrivals(random: Random, sources: int, chaos_s: float, taste: Taste, count: int = 0) -> list[Arrival]:
    keys = [f"k{number}" for number in range(random.choice((1, 2, 5, 20)))]
    kinds = random.choice(
        (("free",), ("free", "queue"), ("queue",), ("free", "queue", "join", "reject", "both"), ("join", "reject"))
    )
    spread = random.choice((0.1, 0.5, 0.9))
    arrivals: list[Arrival] = []
    for number in range(count or random.choice((1, 3, 6, 10, 16))):
        key = random.choice(keys)
        program = drawn(random, f"p{number}", key, taste)
        chance = random.random()
        kind = "unmatched" if chance < 0.06 else "broken" if chance < 0.1 else random.choice(kinds)
        if random.random() < taste.deadly:
            kind, program.deadly = "deadly", True
        record_key = key if random.random() < 0.5 else random.choice((None, f"other{number}", key))
        arrivals.append(
            Arrival(random.uniform(0, chaos_s * spread), kind, random.randrange(sources), record_key, program)
        )
    return arrivals


def _faults(random: Random, seed: int, chaos_s: float, instances: int, partitions: int) -> list[Fault]:
    points = list(FaultPoint)
    faults: list[Fault] = []
    for number in range(random.choice((1, 1, 2, 4))):
        # every point has its turn, whatever the dice say
        point = points[(seed + number * 7) % len(points)] if number < 2 else random.choice(points)
        nth = random.choice((1, 1, 2, 3, 5, 12, 30))
        faults.append(AtPoint(point, nth, random.choice(POINT_KINDS), _for_s(random)))
    for _ in range(random.choice((0, 1, 2, 5))):
        kind = random.choice(TIMED_KINDS)
        target = random.randrange(partitions if kind == "leader" else instances)
        amount = random.choice((-3_600.0, -2.0, -0.05, 0.05, 2.0, 3_600.0))
        faults.append(Timed(random.uniform(0, chaos_s), kind, target, _for_s(random), amount))
    return faults


def _rewinds(random: Random, chaos_s: float, arrivals: list[Arrival]) -> list[Fault]:
    """Where nothing is refused: a dead letter does not say of which epoch it is."""
    if any(arrival.kind == "reject" for arrival in arrivals):
        return []
    return [
        Timed(random.uniform(0, chaos_s), "rewind", 0, _for_s(random)) for _ in range(random.choice((0, 0, 0, 0, 1, 2)))
    ]


def _for_s(random: Random) -> float:
    return random.choice((0.05, 0.5, 2.0, 8.0, 25.0)) * random.uniform(0.5, 1.5)
