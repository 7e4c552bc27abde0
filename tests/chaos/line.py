"""A line: one kind of fault, tried some times, with what came of it. A line whose fault hit nothing is void, not passed."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from enum import StrEnum
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec

from tests.chaos.judge import Figures, Verdict
from tests.chaos.session import Place, Session
from tests.chaos.tcp_proxy import TcpProxy
from tests.kafka_broker.broker import KafkaBroker, free_port
from tests.kafka_broker.cluster import KafkaCluster


class Scale(StrEnum):
    """How much: a part of `make test`; on demand all of it, with more than 500 kills in 25 minutes; hours."""

    CI = "ci"
    FULL = "full"
    LONG = "long"


KILLS = {"kill", "kill of a worker", "point", "late produce"}  # kinds of fault in which a worker dies by SIGKILL


_QUIET_DONE_MIN = 0.95


class Outcome(msgspec.Struct, kw_only=True):
    """What a line says in the table and the JSON."""

    line: str
    title: str
    verdict: Literal["passed", "failed", "void"]
    tried: int
    fired: int
    passed: int
    kills: int = 0
    """Of `fired`: a worker that died by SIGKILL."""
    violations: list[str]
    void: str
    seeds: list[int]
    seconds: float
    runs: int
    duplicates: int
    duplicates_allowed: int
    repeated_attempts: int
    stale_records: int
    quiet: int
    """Inputs that came while no fault was on."""
    quiet_done: int
    """Of `quiet`: in, and ended as they should."""
    notes: dict[str, Any]


class Tally:
    """Counts while a line goes on."""

    def __init__(self) -> None:
        self.tried = self.fired = self.passed = self.kills = 0
        self.violations: list[str] = []
        self.seeds: list[int] = []
        self.notes: dict[str, Any] = {}
        self.void = ""
        self.figures: list[Figures] = []

    def add(self, session: Session, verdict: Verdict) -> None:
        """A session with its faults: all of them passed, or none."""
        self.seeds.append(session.seed)
        self.figures.append(verdict.figures)
        fired = sum(window.fired for window in session.windows)
        if session.resumed:
            self.notes["parked_as_poison"] = self.notes.get("parked_as_poison", 0) + len(session.resumed)
        self.tried += len(session.windows)
        self.fired += fired
        self.kills += sum(window.fired and window.kind in KILLS for window in session.windows)
        self.passed += 0 if verdict.violations else fired
        self.violations += [f"seed {session.seed}: {violation}" for violation in verdict.violations]

    def note(self, name: str, figure: object) -> None:
        """A figure beside the verdict."""
        self.notes[name] = figure

    def sample(self, name: str, value: float) -> None:
        """One of several measurements; the table shows their number, median, p99 and maximum."""
        self.notes.setdefault(name, []).append(value)

    def outcome(self, line: "Line", seconds: float) -> Outcome:
        """The verdict."""
        void = self.void or ("" if self.fired or self.violations else "no fault hit anything") or self._unsound()
        return Outcome(
            line=line.id,
            title=line.title,
            verdict="failed" if self.violations else "void" if void else "passed",
            tried=self.tried,
            fired=self.fired,
            passed=self.passed,
            kills=self.kills,
            violations=self.violations,
            void=void,
            seeds=self.seeds,
            seconds=round(seconds, 1),
            runs=sum(figures.runs for figures in self.figures),
            duplicates=sum(figures.duplicates for figures in self.figures),
            duplicates_allowed=sum(figures.duplicates_allowed for figures in self.figures),
            repeated_attempts=sum(figures.repeated_attempts for figures in self.figures),
            stale_records=sum(sum(figures.skipped.values()) for figures in self.figures),
            quiet=sum(figures.quiet for figures in self.figures),
            quiet_done=sum(figures.quiet_done for figures in self.figures),
            notes={name: _said(value) for name, value in self.notes.items()},
        )

    def _unsound(self) -> str:
        """What works badly by itself says nothing about faults: nearly all that is asked for while there is none must come to its end."""
        quiet = sum(figures.quiet for figures in self.figures)
        done = sum(figures.quiet_done for figures in self.figures)
        if self.figures and done < _QUIET_DONE_MIN * max(1, quiet):
            return f"of {quiet} inputs that came while no fault was on, {done} came to their end"
        return ""


class Bench:
    """What lines share: brokers, started when the first asks. `async with Bench() as bench`."""

    def __init__(self, kafka: KafkaBroker | None = None) -> None:
        self._given = kafka
        self._own: KafkaBroker | None = None
        self._cluster: KafkaCluster | None = None
        self._proxied: Proxied | None = None
        self._stack = AsyncExitStack()

    async def place(self) -> Place:
        """On a broker that nobody harms."""
        return Place((self._given or await self.broker()).bootstrap_servers)

    async def broker(self) -> KafkaBroker:
        """A broker that may be harmed; whoever does leaves it running."""
        if self._own is None:
            self._own = await self._stack.enter_async_context(KafkaBroker())
        return self._own

    async def cluster(self) -> KafkaCluster:
        """Three nodes."""
        if self._cluster is None:
            self._cluster = await self._stack.enter_async_context(KafkaCluster())
        return self._cluster

    async def proxied(self) -> "Proxied":
        """A broker with two ways to it, each behind a proxy."""
        if self._proxied is None:
            told = [free_port(), free_port()]
            behind = [free_port(), free_port()]
            routes = dict(zip(told, behind, strict=True))
            broker = await self._stack.enter_async_context(KafkaBroker(advertised=routes))
            proxy = TcpProxy(routes)
            self._stack.callback(proxy.close)
            self._proxied = Proxied(broker, proxy, told[0], told[1])
        return self._proxied

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()


class Proxied(NamedTuple):
    """Clients that come by `port` (or `other`) stay on it: the broker tells them no other address."""

    broker: KafkaBroker
    proxy: TcpProxy
    port: int
    other: int

    @property
    def place(self) -> Place:
        """Past the proxies: for the load and the judge."""
        return Place(self.broker.bootstrap_servers)

    @property
    def servers(self) -> str:
        """Through the first proxy: for workers."""
        return f"127.0.0.1:{self.port}"

    @property
    def other_servers(self) -> str:
        """Through the second."""
        return f"127.0.0.1:{self.other}"


class Line(NamedTuple):
    """`run` does it once, with a seed. `alone`: it holds speeds against each other, so nothing else may run."""

    id: str
    title: str
    run: Callable[[Bench, Scale, int, Tally], Awaitable[None]]
    alone: bool = False

    async def outcome(self, bench: Bench, scale: Scale, seed: int) -> Outcome:
        """Run it, and say what came of it."""
        tally, began = Tally(), time.monotonic()
        await self.run(bench, scale, seed, tally)
        return tally.outcome(self, time.monotonic() - began)


def _said(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    ordered: list[float] = sorted(value)
    return {
        "n": len(ordered),
        "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
        "max": round(ordered[-1], 3),
    }
