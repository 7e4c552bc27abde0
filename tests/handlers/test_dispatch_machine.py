"""The dispatcher under random use: what must hold after every step, whatever came before."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.handlers.breaker import Breaker, BreakerRegistry, CallOutcome
from headrace.handlers.definition import Handler, handler
from headrace.handlers.dispatch import Dispatched, Dispatcher
from headrace.handlers.pool import Pool, PoolRegistry

AnyHandler = Handler[*tuple[Any, ...], Any]

POOLS = (None, Pool("p", size=1), Pool("q", size=3))
BREAKERS = (
    None,
    Breaker("b", window=3, minimum_calls=2, open_for="5s", probes=2),
    Breaker("f", window=2, minimum_calls=1, open_for="3s", probes=1, on_open="fail"),
)


def defined(pool: Pool | None, breaker: Breaker | None) -> AnyHandler:
    async def task() -> None: ...

    return handler(name="h", pool=pool, breaker=breaker)(task)


HANDLERS = [defined(pool, breaker) for pool in POOLS for breaker in BREAKERS]


class DispatcherRules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.breakers, self.pools = BreakerRegistry(), PoolRegistry()
        self.dispatcher = Dispatcher[int](breakers=self.breakers, pools=self.pools)
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
        for each in dispatched.refused:
            definition, _ = self.held.pop(each.attempt)
            assert definition.breaker is not None
            assert definition.breaker.on_open == "fail"

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
            assert wake_ms > self.now_ms  # else the shell would spin
            self.now_ms = wake_ms
            self.does(self.dispatcher.wake(self.now_ms))
        self.now_ms = until_ms
        self.does(self.dispatcher.wake(self.now_ms))

    @invariant()
    def counts_are_right(self) -> None:
        shown = self.dispatcher.statistics(self.now_ms)
        assert shown.running == len(self.running)
        assert sum(shown.held.values()) == len(self.held)
        for pool in shown.pools:
            in_use = [each for each in self.running.values() if each.pool is not None and each.pool.name == pool.name]
            assert pool.in_use == len(in_use) <= pool.size

    @invariant()
    def nobody_is_held_who_could_start(self) -> None:
        for definition, _ in self.held.values():
            full = definition.pool is not None and self.pools.slots(definition.pool).is_full()
            blocked = (
                definition.breaker is not None
                and self.breakers.state(definition.breaker).refusal(self.now_ms) is not None
            )
            assert full or blocked

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
