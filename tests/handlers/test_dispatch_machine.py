"""The dispatcher under random use: what must hold after every step, whatever came before."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.handlers.breaker import Breaker, BreakerRegistry, CallOutcome
from headrace.handlers.definition import Handler, handler
from headrace.handlers.dispatch import Dispatched, Dispatcher
from headrace.handlers.pool import Pool, PoolRegistry
from headrace.handlers.rate_limit import RateLimit, RateLimitRegistry

AnyHandler = Handler[*tuple[Any, ...], Any]

POOLS = (None, Pool("p", size=1), Pool("q", size=3))
BREAKERS = (
    None,
    Breaker("b", window=3, minimum_calls=2, open_for="5s", probes=2),
    Breaker("f", window=2, minimum_calls=1, open_for="3s", probes=1, on_open="fail"),
)
LIMITS = (None, RateLimit("l", limit=2, per="3s"), RateLimit("m", limit=3, per="1s", burst=1))


def defined(pool: Pool | None, breaker: Breaker | None, limit: RateLimit | None) -> AnyHandler:
    async def task() -> None: ...

    return handler(name="h", pool=pool, breaker=breaker, rate_limit=limit)(task)


HANDLERS = [defined(pool, breaker, limit) for pool in POOLS for breaker in BREAKERS for limit in LIMITS]


class DispatcherRules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.breakers, self.pools = BreakerRegistry(), PoolRegistry()
        self.limits = RateLimitRegistry()
        self.dispatcher = Dispatcher[int](breakers=self.breakers, pools=self.pools, limits=self.limits)
        self.begun: dict[RateLimit, list[int]] = {}  # when
        self.late = False  # an appointment may be over
        self.now_ms = 0
        self.next = 0
        self.running: dict[int, AnyHandler] = {}
        self.held: dict[int, tuple[AnyHandler, int]] = {}

    def does(self, dispatched: Dispatched[int]) -> None:
        last: dict[AnyHandler, int] = {}
        for each in dispatched.started:
            definition, since_ms = self.held.pop(each.attempt)
            assert each.held_ms == self.now_ms - since_ms
            assert last.get(definition, -1) < each.attempt  # in order of offers
            last[definition] = each.attempt
            same = [other for other, (its, _) in self.held.items() if its is definition]
            assert all(other > each.attempt for other in same)
            self.running[each.attempt] = definition
            if definition.rate_limit is not None:
                self.begins(definition.rate_limit)
                self.passes_nobody(each.attempt, definition.rate_limit, dispatched)
        for each in dispatched.refused:
            definition, _ = self.held.pop(each.attempt)
            assert definition.breaker is not None
            assert definition.breaker.on_open == "fail"

    def passes_nobody(self, attempt: int, limit: RateLimit, dispatched: Dispatched[int]) -> None:
        """Those who came before and wait for the same tokens could not begin anyway, or begin too."""
        begin_too = {each.attempt for each in dispatched.started} | {each.attempt for each in dispatched.refused}
        for other, (definition, _) in self.held.items():
            if other < attempt and definition.rate_limit == limit and other not in begin_too:
                assert self.is_full(definition) or self.is_blocked(definition)

    def is_full(self, definition: AnyHandler) -> bool:
        return definition.pool is not None and self.pools.slots(definition.pool).is_full()

    def is_blocked(self, definition: AnyHandler) -> bool:
        return (
            definition.breaker is not None and self.breakers.state(definition.breaker).refusal(self.now_ms) is not None
        )

    def begins(self, limit: RateLimit) -> None:
        """Never more in any time than the limit's docstring says."""
        times = self.begun.setdefault(limit, [])
        times.append(self.now_ms)
        for count, since_ms in enumerate(reversed(times), start=1):
            assert count * limit.per_ms <= limit.burst * limit.per_ms + limit.limit * (self.now_ms - since_ms)

    @rule(definition=st.sampled_from(HANDLERS))
    def an_attempt_is_ready(self, definition: AnyHandler) -> None:
        attempt = self.next
        self.next += 1
        self.held[attempt] = (definition, self.now_ms)
        dispatched = self.dispatcher.offer(self.now_ms, attempt, definition, workflow="w")
        self.does(dispatched)
        assert (attempt in self.held) == any(each.attempt == attempt for each in dispatched.held)

    @precondition(lambda self: bool(self.running))
    @rule(which=st.integers(0, 100), outcome=st.sampled_from([CallOutcome.FAILED, *CallOutcome]))
    def an_attempt_ends(self, which: int, outcome: CallOutcome) -> None:
        attempt = sorted(self.running)[which % len(self.running)]
        del self.running[attempt]
        self.does(self.dispatcher.complete(self.now_ms, attempt, outcome, 1.0))

    @precondition(lambda self: bool(self.held))
    @rule(which=st.integers(0, 100))
    def a_held_attempt_is_cancelled(self, which: int) -> None:
        attempt = sorted(self.held)[which % len(self.held)]
        del self.held[attempt]
        assert self.dispatcher.remove(attempt)

    @rule(step_ms=st.sampled_from([1, 1_000, 2_999, 5_000]))
    def time_passes_and_the_shell_keeps_its_appointments(self, step_ms: int) -> None:
        until_ms = self.now_ms + step_ms
        while (wake_ms := self.dispatcher.next_wake_ms()) is not None and wake_ms <= until_ms:
            assert self.late or wake_ms > self.now_ms  # else the shell would spin
            self.now_ms, self.late = max(self.now_ms, wake_ms), False
            self.does(self.dispatcher.wake(self.now_ms))
        self.now_ms = until_ms
        self.does(self.dispatcher.wake(self.now_ms))
        self.late = False

    @rule(step_ms=st.sampled_from([1, 400, 3_000]))
    def time_passes_and_the_shell_is_late(self, step_ms: int) -> None:
        self.now_ms += step_ms
        self.late = True

    @invariant()
    def counts_are_right(self) -> None:
        shown = self.dispatcher.statistics(self.now_ms)
        assert shown.running == len(self.running)
        assert sum(shown.held.values()) == len(self.held)
        for pool in shown.pools:
            in_use = [each for each in self.running.values() if each.pool is not None and each.pool.name == pool.name]
            assert pool.in_use == len(in_use) <= pool.size

    @invariant()
    def limits_count_what_begins(self) -> None:
        shown = {each.name: each for each in self.dispatcher.statistics(self.now_ms).limits}
        for limit, times in self.begun.items():
            assert shown[limit.name].begun == len(times)
            assert 0 <= shown[limit.name].tokens <= limit.burst

    @invariant()
    def nobody_is_held_who_could_start(self) -> None:
        for definition, _ in () if self.late else self.held.values():
            dry = definition.rate_limit is not None and self.limits.state(definition.rate_limit).next_ms() > self.now_ms
            assert self.is_full(definition) or self.is_blocked(definition) or dry

    def teardown(self) -> None:
        """Everything that was offered ends, if time goes on and attempts succeed."""
        for _ in range(10_000):
            if not (self.running or self.held):
                break
            for attempt in sorted(self.running):
                del self.running[attempt]
                self.does(self.dispatcher.complete(self.now_ms, attempt, CallOutcome.SUCCEEDED, 1.0))
            self.now_ms += 5_000
            self.does(self.dispatcher.wake(self.now_ms))
        assert not self.running
        assert not self.held


TestDispatcherRules = DispatcherRules.TestCase
TestDispatcherRules.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
