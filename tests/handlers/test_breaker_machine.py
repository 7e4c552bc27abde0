"""The breaker against a model that keeps the whole history and counts anew each time."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.handlers.breaker import Breaker, BreakerState, CallOutcome, NoSlot, NotBefore, Permit

SLOW_MS = 100
OPEN_MS = 5_000


@dataclass
class Model:
    window: int
    by_time: bool
    minimum: int
    failure_rate: float
    slow_rate: float
    probes: int
    status: str = "closed"
    history: list[tuple[int, bool, bool]] = field(default_factory=list)
    out: int = 0
    opened_ms: int = 0

    def asks(self, now_ms: int) -> str:
        if self.status == "open" and now_ms >= self.opened_ms + OPEN_MS:
            self.go("half_open")
        if self.status == "half_open":
            if self.out + len(self.history) >= self.probes:
                return "no slot"
            self.out += 1
        return {"closed": "permit", "half_open": "permit", "open": "not before"}[self.status]

    def ends(self, now_ms: int, outcome: CallOutcome, duration_ms: float) -> None:
        if self.status == "half_open":
            self.out -= 1
        if outcome in (CallOutcome.IGNORED, CallOutcome.CANCELLED):
            return
        self.history.append((now_ms, outcome is CallOutcome.FAILED, duration_ms > SLOW_MS))
        if self.status == "half_open":
            if len(self.history) == self.probes:
                self.go("open" if self.bad(self.history) else "closed", now_ms)
            return
        seen = self.in_window()
        needed = self.minimum if self.by_time else min(self.minimum, self.window)
        if len(seen) >= needed and self.bad(seen):
            self.go("open", now_ms)

    def in_window(self) -> list[tuple[int, bool, bool]]:
        if not self.by_time:
            return self.history[-self.window :]
        newest = self.history[-1][0] // 1000
        return [each for each in self.history if each[0] // 1000 > newest - self.window]

    def bad(self, seen: list[tuple[int, bool, bool]]) -> bool:
        failures = sum(failed for _, failed, _ in seen)
        slow = sum(was_slow for _, _, was_slow in seen)
        return failures / len(seen) >= self.failure_rate or slow / len(seen) >= self.slow_rate

    def go(self, status: str, now_ms: int = 0) -> None:
        self.status, self.history, self.out = status, [], 0
        self.opened_ms = now_ms


class BreakerAgainstModel(RuleBasedStateMachine):
    @initialize(
        window=st.integers(1, 6),
        by_time=st.booleans(),
        minimum=st.integers(1, 6),
        failure_rate=st.sampled_from([0.2, 0.5, 1.0]),
        slow_rate=st.sampled_from([0.3, 0.5, 1.0]),
        probes=st.integers(1, 4),
    )
    def begin(
        self, window: int, by_time: bool, minimum: int, failure_rate: float, slow_rate: float, probes: int
    ) -> None:
        self.model = Model(window, by_time, minimum, failure_rate, slow_rate, probes)
        self.state = BreakerState(
            Breaker(
                "b",
                window=f"{window}s" if by_time else window,
                minimum_calls=minimum,
                failure_rate=failure_rate,
                slow_call=f"{SLOW_MS}ms",
                slow_call_rate=slow_rate,
                open_for=f"{OPEN_MS}ms",
                probes=probes,
            )
        )
        self.now_ms = 0
        self.era = 0
        self.out: list[tuple[Permit, int]] = []

    @rule(step_ms=st.sampled_from([1, 400, 1_000, 2_500, OPEN_MS - 1, OPEN_MS]))
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @rule()
    def a_call_asks(self) -> None:
        before = self.model.status
        expected = self.model.asks(self.now_ms)
        got = self.state.try_acquire(self.now_ms)
        assert {Permit: "permit", NotBefore: "not before", NoSlot: "no slot"}[type(got)] == expected
        if isinstance(got, NotBefore):
            assert got.at_ms == self.model.opened_ms + OPEN_MS
        if isinstance(got, Permit):
            moved = self.model.status != before
            assert (got.transition is not None) == moved
            self.era += moved
            self.out.append((got, self.era))

    @precondition(lambda self: bool(self.out))
    @rule(
        which=st.integers(0, 100),
        outcome=st.sampled_from([CallOutcome.FAILED, CallOutcome.FAILED, CallOutcome.SUCCEEDED, *CallOutcome]),
        duration_ms=st.sampled_from([0.0, float(SLOW_MS), SLOW_MS + 0.1]),
    )
    def a_call_ends(self, which: int, outcome: CallOutcome, duration_ms: float) -> None:
        permit, era = self.out.pop(which % len(self.out))
        before = self.model.status
        if era == self.era:
            self.model.ends(self.now_ms, outcome, duration_ms)
        moved = self.state.record(self.now_ms, permit, outcome, duration_ms)
        assert (moved is not None) == (self.model.status != before)
        if moved is not None:
            assert (moved.before, moved.after, moved.at_ms) == (before, self.model.status, self.now_ms)
            self.era += 1

    @invariant()
    def both_agree(self) -> None:
        if not hasattr(self, "state"):
            return
        shown = self.state.statistics()
        assert shown.status == self.model.status
        if self.model.status == "half_open":
            assert shown.probes_out == self.model.out
            assert shown.probes_out + shown.calls <= self.model.probes
        if self.model.status == "closed" and self.model.history:
            seen = self.model.in_window()
            assert shown.calls == len(seen)
            assert shown.failed == sum(failed for _, failed, _ in seen)
            assert shown.slow == sum(slow for _, _, slow in seen)


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
