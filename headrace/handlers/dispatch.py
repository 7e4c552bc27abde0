"""Which ready attempts start now, and which are held, and why.

Pure and synchronous, one per process: breakers, pools and rate limits are shared by all partitions. It must never start anything
itself: the shell offers attempts, does what a `Dispatched` says, reports each end with `complete`, and calls `wake`
at `next_wake_ms`.

Attempts with the same breaker, pool and rate limit are interchangeable, so they wait in one *lane*, in order. When something
becomes free, the oldest heads of the lanes concerned are tried: O(log lanes) for each that starts, whatever waits
behind them. An attempt that its breaker blocks lets younger ones of other lanes pass to their pool and their token. A
token that has come is the oldest's, even if somebody offers before the shell wakes us for it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from headrace.handlers.breaker import (
    BreakerRegistry,
    BreakerState,
    BreakerStatistics,
    CallOutcome,
    NotBefore,
    Permit,
    Transition,
)
from headrace.handlers.pool import PoolRegistry, PoolSlots, PoolStatistics
from headrace.handlers.rate_limit import RateLimitRegistry, RateLimitState, RateLimitStatistics
from headrace.handlers.result import AttemptCancelled, AttemptEnd, AttemptError, AttemptOk
from headrace.topics.errors import Cause, Fatal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.handlers.definition import Handler

    AnyHandler = Handler[*tuple[Any, ...], Any]

K = TypeVar("K", bound=Hashable)


class HeldReason(StrEnum):
    """What a held attempt waits for. A closed set: fit for a metric label."""

    BREAKER = "held_breaker"
    POOL = "held_pool"
    LIMIT = "held_limit"


class Started(msgspec.Struct, Generic[K], frozen=True, gc=False):
    """Make this attempt now. `held_ms` is how long it was held; 0: not at all."""

    attempt: K
    held_ms: int


class Held(msgspec.Struct, Generic[K], frozen=True, gc=False):
    """This attempt waits. Nothing needs to be done."""

    attempt: K
    reason: HeldReason


class Refused(msgspec.Struct, Generic[K], frozen=True):
    """This attempt failed without being made: its breaker is open and says `fail`. It was never started: do not
    `complete` it.
    """

    attempt: K
    error: AttemptError
    held_ms: int


class Dispatched(msgspec.Struct, Generic[K], frozen=True, gc=False):
    """What to do now, in this order: tell the transitions, start, fail. `held` has the attempt that was offered, if
    it waits.
    """

    started: tuple[Started[K], ...] = ()
    held: tuple[Held[K], ...] = ()
    refused: tuple[Refused[K], ...] = ()
    transitions: tuple[Transition, ...] = ()


class DispatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A moment's counts, in attempts. `held` by (workflow, reason), without zeros."""

    running: int
    held: dict[tuple[str, HeldReason], int]
    pools: tuple[PoolStatistics, ...]
    breakers: tuple[BreakerStatistics, ...]
    limits: tuple[RateLimitStatistics, ...] = ()


def outcome_of(end: AttemptEnd) -> CallOutcome:
    """How a breaker sees the end of an attempt. A result that cannot be written is no fault of what was called."""
    match end:
        case AttemptOk():
            return CallOutcome.SUCCEEDED
        case AttemptCancelled():
            return CallOutcome.CANCELLED
        case AttemptError(ignored_by_breaker=True):
            return CallOutcome.IGNORED
        case AttemptError(cause=Cause.BAD_RESULT | Cause.TOO_LARGE):
            return CallOutcome.SUCCEEDED
        case AttemptError():
            return CallOutcome.FAILED


class Dispatcher(Generic[K]):
    """`K` identifies an attempt in this process. All `now_ms` come from one clock that does not step back."""

    def __init__(
        self,
        *,
        breakers: BreakerRegistry | None = None,
        pools: PoolRegistry | None = None,
        limits: RateLimitRegistry | None = None,
    ) -> None:
        self._breakers = BreakerRegistry() if breakers is None else breakers
        self._pools = PoolRegistry() if pools is None else pools
        self._limits = RateLimitRegistry() if limits is None else limits
        self._lanes: dict[tuple[str | None, str | None, str | None], _Lane[K]] = {}
        self._metered: list[_Lane[K]] = []  # those with a rate limit
        self._lane_of: dict[AnyHandler, _Lane[K]] = {}
        self._held: dict[K, _Lane[K]] = {}
        self._running: dict[K, _Running[K]] = {}
        self._offers = 0

    def register(self, handler: AnyHandler) -> None:
        """Take a handler's policies. DefinitionError (HR2037): a name is taken with other settings."""
        breaker = None if handler.breaker is None else self._breakers.state(handler.breaker)
        pool = None if handler.pool is None else self._pools.slots(handler.pool)
        limit = None if handler.rate_limit is None else self._limits.state(handler.rate_limit)
        key = (breaker and breaker.breaker.name, pool and pool.pool.name, limit and limit.rate_limit.name)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(breaker, pool, limit)
            if limit is not None:
                self._metered.append(lane)
            for other in self._lanes.values():
                if other.shares_with(lane):
                    other.neighbours.append(lane)
                    if other is not lane:
                        lane.neighbours.append(other)
        self._lane_of[handler] = lane

    def offer(self, now_ms: int, attempt: K, handler: AnyHandler, *, workflow: str = "") -> Dispatched[K]:
        """An attempt is ready: it starts, is held or is refused. Fatal (HR9010): it was offered already."""
        if attempt in self._running or attempt in self._held:
            raise Fatal(f"Attempt {attempt!r} was offered twice.", code="HR9010")
        lane = self._lane_of.get(handler)
        if lane is None:
            self.register(handler)
            lane = self._lane_of[handler]
        if not lane.limited:
            self._running[attempt] = _Running(lane, None)
            return Dispatched(started=(Started(attempt, 0),))
        self._offers += 1
        out = _Out[K]()
        lane.waiting[attempt] = _Waiting(self._offers, now_ms, handler.name, workflow)
        lane.count(workflow, 1)
        self._held[attempt] = lane
        self._advance(now_ms, (lane,) if lane.limit is None else self._metered, out)
        reason = () if attempt not in self._held else (Held(attempt, lane.reason(now_ms)),)
        return out.dispatched(reason)

    def complete(self, now_ms: int, attempt: K, outcome: CallOutcome, duration_ms: float) -> Dispatched[K]:
        """A started attempt has ended, or was abandoned. Fatal (HR9010): it does not run."""
        running = self._running.pop(attempt, None)
        if running is None:
            raise Fatal(f"Attempt {attempt!r} ended, but does not run.", code="HR9010")
        lane = running.lane
        if not lane.limited:
            return Dispatched()
        out = _Out[K]()
        if lane.pool is not None:
            lane.pool.release()
        if lane.breaker is not None and running.permit is not None:
            out.moved(lane.breaker.record(now_ms, running.permit, outcome, duration_ms))
        if self._held:
            helped = dict.fromkeys((*lane.neighbours, *self._metered)) if self._metered else lane.neighbours
            self._advance(now_ms, helped, out)
        return out.dispatched()

    def remove(self, attempt: K) -> bool:
        """Forget a held attempt (it was cancelled). False: it is not held; a running one is ended by `complete`."""
        lane = self._held.pop(attempt, None)
        if lane is None:
            return False
        lane.count(lane.waiting.pop(attempt).workflow, -1)
        return True

    def wake(self, now_ms: int) -> Dispatched[K]:
        """The time of `next_wake_ms` has come. Harmless at any other time."""
        out = _Out[K]()
        self._advance(now_ms, self._lanes.values(), out)
        return out.dispatched()

    def next_wake_ms(self) -> int | None:
        """When a held attempt may start without any other ending: an open breaker's time is over, a token is there.

        None: no such time.

        Ask again after every call: each may change it.
        """
        if not self._held:
            return None
        times = [at_ms for lane in self._lanes.values() if (at_ms := lane.wake_ms()) is not None]
        return min(times, default=None)

    def statistics(self, now_ms: int) -> DispatchStatistics:
        """A frozen snapshot."""
        held: dict[tuple[str, HeldReason], int] = {}
        for lane in self._lanes.values():
            for workflow, count in lane.by_workflow.items():
                key = (workflow, lane.reason(now_ms))
                held[key] = held.get(key, 0) + count
        return DispatchStatistics(
            running=len(self._running),
            held=held,
            pools=self._pools.statistics(),
            breakers=self._breakers.statistics(),
            limits=self._limits.statistics(now_ms),
        )

    def _advance(self, now_ms: int, lanes: Iterable[_Lane[K]], out: _Out[K]) -> None:
        """Start what can start, oldest first. Starting frees nothing, so a lane that is blocked stays so here."""
        heads = [(lane.head_order(), id(lane), lane) for lane in lanes if lane.waiting]
        heapq.heapify(heads)
        while heads:
            _, _, lane = heads[0]
            if self._start_head(now_ms, lane, out) and lane.waiting:
                heapq.heapreplace(heads, (lane.head_order(), id(lane), lane))
            else:
                heapq.heappop(heads)

    def _start_head(self, now_ms: int, lane: _Lane[K], out: _Out[K]) -> bool:
        if lane.breaker is not None and (refusal := lane.breaker.refusal(now_ms)) is not None:
            if lane.breaker.breaker.on_open == "fail":
                self._refuse_all(now_ms, lane, "half-open" if not isinstance(refusal, NotBefore) else "open", out)
            return False
        if lane.limit is not None and now_ms < lane.limit.next_ms():
            return False
        if lane.pool is not None and not lane.pool.try_acquire():
            return False
        if lane.limit is not None and not lane.limit.try_acquire(now_ms):
            raise Fatal(f"Rate limit {lane.limit.rate_limit.name} changed its mind.", code="HR9010")
        permit = None
        if lane.breaker is not None:
            permit = lane.breaker.try_acquire(now_ms)
            if not isinstance(permit, Permit):
                raise Fatal(f"Breaker {lane.breaker.breaker.name} changed its mind.", code="HR9010")
            out.moved(permit.transition)
        attempt, waited = self._pop_head(lane)
        self._running[attempt] = _Running(lane, permit)
        out.started.append(Started(attempt, max(0, now_ms - waited.since_ms)))
        return True

    def _refuse_all(self, now_ms: int, lane: _Lane[K], status: str, out: _Out[K]) -> None:
        while lane.waiting:
            attempt, waited = self._pop_head(lane)
            name = lane.breaker.breaker.name if lane.breaker is not None else ""
            error = AttemptError(
                cause=Cause.BREAKER_OPEN,
                error="BreakerOpen",
                message=f"Breaker {name} is {status}; {waited.handler} was not called",
                retryable=False,
                ignored_by_breaker=True,
                duration_ms=0.0,
            )
            out.refused.append(Refused(attempt, error, max(0, now_ms - waited.since_ms)))

    def _pop_head(self, lane: _Lane[K]) -> tuple[K, _Waiting]:
        attempt, waited = lane.waiting.popitem(last=False)
        del self._held[attempt]
        lane.count(waited.workflow, -1)
        return attempt, waited


class _Waiting:
    """Its place in the order of offers, and what is told about it later."""

    __slots__ = ("handler", "order", "since_ms", "workflow")

    def __init__(self, order: int, since_ms: int, handler: str, workflow: str) -> None:
        self.order = order
        self.since_ms = since_ms
        self.handler = handler
        self.workflow = workflow


class _Lane(Generic[K]):
    """Those who need the same breaker, pool and rate limit, oldest first."""

    __slots__ = ("breaker", "by_workflow", "limit", "limited", "neighbours", "pool", "waiting")

    def __init__(self, breaker: BreakerState | None, pool: PoolSlots | None, limit: RateLimitState | None) -> None:
        self.breaker = breaker
        self.pool = pool
        self.limit = limit
        self.limited: Final = breaker is not None or pool is not None or limit is not None
        self.neighbours: list[_Lane[K]] = []  # whom the end of one of ours may help, ourselves included
        self.waiting: OrderedDict[K, _Waiting] = OrderedDict()  # not dict: popping from the front must stay O(1)
        self.by_workflow: dict[str, int] = {}

    def shares_with(self, other: _Lane[K]) -> bool:
        same_pool = self.pool is not None and self.pool is other.pool
        return same_pool or (self.breaker is not None and self.breaker is other.breaker)

    def head_order(self) -> int:
        return next(iter(self.waiting.values())).order

    def count(self, workflow: str, change: int) -> None:
        left = self.by_workflow.get(workflow, 0) + change
        if left:
            self.by_workflow[workflow] = left
        else:
            self.by_workflow.pop(workflow, None)

    def reason(self, now_ms: int) -> HeldReason:
        if self.breaker is not None and self.breaker.refusal(now_ms) is not None:
            return HeldReason.BREAKER
        if self.limit is None or (self.pool is not None and self.pool.is_full()):
            return HeldReason.POOL
        return HeldReason.LIMIT

    def wake_ms(self) -> int | None:
        """When time alone lets the head start: not while its pool is full or all probes are out, for then another's
        end does.
        """
        if not self.waiting or (self.pool is not None and self.pool.is_full()):
            return None
        probes_ms = None if self.breaker is None else self.breaker.probes_from_ms()
        if self.limit is None or (self.breaker is not None and self.breaker.has_no_slot()):
            return probes_ms
        return max(self.limit.next_ms(), probes_ms or 0)


class _Running(Generic[K]):
    """What it must give back."""

    __slots__ = ("lane", "permit")

    def __init__(self, lane: _Lane[K], permit: Permit | None) -> None:
        self.lane = lane
        self.permit = permit


class _Out(Generic[K]):
    """A `Dispatched` in the making."""

    __slots__ = ("refused", "started", "transitions")

    def __init__(self) -> None:
        self.started: list[Started[K]] = []
        self.refused: list[Refused[K]] = []
        self.transitions: list[Transition] = []

    def moved(self, transition: Transition | None) -> None:
        if transition is not None:
            self.transitions.append(transition)

    def dispatched(self, held: tuple[Held[K], ...] = ()) -> Dispatched[K]:
        return Dispatched(tuple(self.started), held, tuple(self.refused), tuple(self.transitions))
