"""The circuit breaker: resilience4j's state machine, with the time given.

Pure and synchronous. Called by `dispatch.py`, which holds what a breaker does not let through.

```
            rates reach a threshold
  CLOSED ---------------------------> OPEN <--------------+
    ^                                  | open_for is over |
    |      all probes ended,           v                  | all probes ended,
    +------ rates are below ------ HALF_OPEN -------------+ a rate reaches a threshold
```

Rulings, where resilience4j's documentation and code differ or leave it open: half-open decides over exactly `probes`
ended calls, whatever `minimum_calls` is; the end of a call that was let through in an earlier state changes nothing;
open becomes half-open with the first call that asks after `open_for`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import msgspec

from headrace.handlers.breaker_window import CountWindow, TimeWindow, Window
from headrace.handlers.duration import Duration, milliseconds
from headrace.handlers.policy import Errors, Field, check_same, checked_name
from headrace.topics.errors import Fatal

_MS_PER_SECOND: Final = 1000
_CALLS_MAX: Final = 1_000_000  # a window of so many marks takes 8 MB
_WINDOW_SECONDS_MAX: Final = 86_400


@dataclass(frozen=True, slots=True, init=False)
class Breaker:
    """resilience4j's circuit breaker, one for all handlers of this process that name it.

    It looks at the last `window` calls (an int), or at those of that time (a Duration, in whole seconds), once there
    are `minimum_calls`. It opens when the share of failures reaches `failure_rate`, or that of calls longer than
    `slow_call` reaches `slow_call_rate` (shares are above 0, up to 1). After `open_for` it lets `probes` calls through, and
    closes or opens again by their rates. While it is open, `on_open="hold"` lets tasks wait and uses none of their
    attempts; `"fail"` fails the attempt. `ignore`: errors that count neither as failure nor as success.

    Exactly one of `window_calls` and `window_seconds` is set.
    """

    name: str
    window_calls: int | None
    window_seconds: int | None
    minimum_calls: int
    failure_rate: float
    slow_call_ms: int
    slow_call_rate: float
    open_for_ms: int
    probes: int
    ignore: Errors
    on_open: Literal["hold", "fail"]

    def __init__(
        self,
        name: str,
        *,
        window: int | Duration = 100,
        minimum_calls: int = 100,
        failure_rate: float = 0.5,
        slow_call: Duration = "60s",
        slow_call_rate: float = 1.0,
        open_for: Duration = "60s",
        probes: int = 10,
        ignore: Errors = (),
        on_open: Literal["hold", "fail"] = "hold",
    ) -> None:
        """DefinitionError (HR2030, HR2036) names the field."""
        put = object.__setattr__
        put(self, "name", checked_name("Breaker", name))
        put(self, "window_calls", _count(self.name, "window", window) if isinstance(window, int) else None)
        put(self, "window_seconds", None if isinstance(window, int) else _seconds(self.name, window))
        put(self, "minimum_calls", _count(self.name, "minimum_calls", minimum_calls))
        put(self, "failure_rate", _rate(self.name, "failure_rate", failure_rate))
        put(self, "slow_call_ms", milliseconds(slow_call, name="Breaker.slow_call"))
        put(self, "slow_call_rate", _rate(self.name, "slow_call_rate", slow_call_rate))
        put(self, "open_for_ms", milliseconds(open_for, name="Breaker.open_for"))
        put(self, "probes", _count(self.name, "probes", probes))
        put(self, "ignore", _field(self.name, "ignore", ignore).errors())
        if on_open not in ("hold", "fail"):
            raise _field(self.name, "on_open", on_open).refused('it is "hold" or "fail"')
        put(self, "on_open", on_open)


class BreakerStatus(StrEnum):
    """Where a breaker is. The legal moves are in the picture above."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CallOutcome(StrEnum):
    """How a call ended, for a breaker. IGNORED and CANCELLED do not count and give their permit back."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    IGNORED = "ignored"
    CANCELLED = "cancelled"


class Transition(msgspec.Struct, frozen=True):
    """A breaker moved."""

    breaker: str
    at_ms: int
    before: BreakerStatus
    after: BreakerStatus


class Permit(msgspec.Struct, frozen=True):
    """One call may be made; record its end with this permit. `transition`: asking for it moved the breaker."""

    era: int
    transition: Transition | None = None


class NotBefore(msgspec.Struct, frozen=True):
    """Open: ask again at `at_ms`."""

    at_ms: int


class NoSlot(msgspec.Struct, frozen=True):
    """Half-open, and all probes are out: ask again when one has ended."""


class BreakerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A moment's state. `calls`, `failed`, `slow` are of the present window; `probes_out` are probes that have not
    ended.
    """

    name: str
    status: BreakerStatus
    calls: int
    failed: int
    slow: int
    probes_out: int
    since_ms: int | None  # when it got here; None: from the start


_NO_SLOT: Final = NoSlot()


class BreakerState:
    """One breaker in this process. `now_ms` must come from one clock; if it steps back, the newest time seen counts."""

    __slots__ = ("_era", "_now_ms", "_permit", "_probes_out", "_since_ms", "_window", "breaker", "status")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.status = BreakerStatus.CLOSED
        self._era = 0  # rises with each move: a permit belongs to one
        self._permit = Permit(0)
        self._window: Window = _window_of(breaker)
        self._probes_out = 0
        self._now_ms = 0
        self._since_ms: int | None = None

    def refusal(self, now_ms: int) -> NotBefore | NoSlot | None:
        """Why a call could not be made now; None: it could. Changes nothing."""
        if self.status is BreakerStatus.CLOSED:
            return None
        if self.status is BreakerStatus.OPEN:
            again_ms = self._open_until_ms
            return None if max(now_ms, self._now_ms) >= again_ms else NotBefore(again_ms)
        return _NO_SLOT if self.has_no_slot() else None

    def probes_from_ms(self) -> int | None:
        """When an open breaker lets the first probe through. None: it is not open."""
        return self._open_until_ms if self.status is BreakerStatus.OPEN else None

    def has_no_slot(self) -> bool:
        """Half-open, and all probes are out: time alone changes nothing."""
        return self.status is BreakerStatus.HALF_OPEN and self._probes_out + self._window.calls >= self.breaker.probes

    def try_acquire(self, now_ms: int) -> Permit | NotBefore | NoSlot:
        """Ask for one call. A Permit must come back in `record`."""
        if self.status is BreakerStatus.CLOSED:
            return self._permit
        refusal = self.refusal(now_ms)
        if refusal is not None:
            return refusal
        if self.status is BreakerStatus.OPEN:
            transition = self._move(now_ms, BreakerStatus.HALF_OPEN, CountWindow(self.breaker.probes))
            self._probes_out = 1
            return Permit(self._era, transition)
        self._probes_out += 1
        return self._permit

    def record(self, now_ms: int, permit: Permit, outcome: CallOutcome, duration_ms: float) -> Transition | None:
        """A permitted call has ended after `duration_ms`. The move it caused, if any."""
        if permit.era != self._era:
            return None
        if self.status is BreakerStatus.HALF_OPEN:
            self._give_probe_back()
        if outcome is CallOutcome.IGNORED or outcome is CallOutcome.CANCELLED:
            return None
        slow = duration_ms > self.breaker.slow_call_ms
        self._window.record(now_ms, failed=outcome is CallOutcome.FAILED, slow=slow)
        if self.status is BreakerStatus.HALF_OPEN:
            return self._judge_probes(now_ms)
        if self._window.calls >= self._calls_needed() and self._reaches_a_threshold():
            return self._open(now_ms)
        return None

    def statistics(self) -> BreakerStatistics:
        """A frozen snapshot."""
        window = self._window
        return BreakerStatistics(
            name=self.breaker.name,
            status=self.status,
            calls=window.calls,
            failed=window.failed,
            slow=window.slow,
            probes_out=self._probes_out,
            since_ms=self._since_ms,
        )

    def _judge_probes(self, now_ms: int) -> Transition | None:
        if self._window.calls < self.breaker.probes:
            return None
        if self._reaches_a_threshold():
            return self._open(now_ms)
        return self._move(now_ms, BreakerStatus.CLOSED, _window_of(self.breaker))

    def _open(self, now_ms: int) -> Transition:
        return self._move(now_ms, BreakerStatus.OPEN, self._window)  # kept for statistics: why it opened

    def _move(self, now_ms: int, after: BreakerStatus, window: Window) -> Transition:
        self._now_ms = max(now_ms, self._now_ms)
        transition = Transition(self.breaker.name, self._now_ms, self.status, after)
        self.status = after
        self._window = window
        self._era += 1
        self._permit = Permit(self._era)
        self._since_ms = self._now_ms
        return transition

    def _give_probe_back(self) -> None:
        if self._probes_out == 0:
            raise Fatal(f"Breaker {self.breaker.name}: a probe ended twice.", code="HR9010")
        self._probes_out -= 1

    @property
    def _open_until_ms(self) -> int:
        return (self._since_ms or 0) + self.breaker.open_for_ms

    def _calls_needed(self) -> int:
        """A count window cannot hold more than its size."""
        size = self.breaker.window_calls
        return self.breaker.minimum_calls if size is None else min(size, self.breaker.minimum_calls)

    def _reaches_a_threshold(self) -> bool:
        window, breaker = self._window, self.breaker
        return (
            window.failed / window.calls >= breaker.failure_rate or window.slow / window.calls >= breaker.slow_call_rate
        )


class BreakerRegistry:
    """The breakers of this process, by name."""

    def __init__(self) -> None:
        self._states: dict[str, BreakerState] = {}

    def state(self, breaker: Breaker) -> BreakerState:
        """The breaker's state. DefinitionError (HR2037): the name is taken by a breaker with other settings."""
        known = self._states.setdefault(breaker.name, BreakerState(breaker))
        check_same("breaker", known.breaker, breaker, name=breaker.name)
        return known

    def statistics(self) -> tuple[BreakerStatistics, ...]:
        """All breakers, in the order of their first use."""
        return tuple(state.statistics() for state in self._states.values())


def _window_of(breaker: Breaker) -> Window:
    if breaker.window_seconds is not None:
        return TimeWindow(breaker.window_seconds)
    return CountWindow(breaker.window_calls or 1)


def _count(name: str, field: str, given: object) -> int:
    return _field(name, field, given).count(_CALLS_MAX)


def _rate(name: str, field: str, given: object) -> float:
    if type(given) not in (int, float) or not 0 < float(given) <= 1:  # pyright: ignore[reportArgumentType]
        raise _field(name, field, given).refused("it is a share of the calls: more than 0, at most 1")
    return float(given)  # pyright: ignore[reportArgumentType]


def _seconds(name: str, window: Duration) -> int:
    seconds, rest = divmod(milliseconds(window, name="Breaker.window"), _MS_PER_SECOND)
    if rest or seconds > _WINDOW_SECONDS_MAX:
        raise _field(name, "window", window).refused(f"it spans whole seconds, at most {_WINDOW_SECONDS_MAX}")
    return seconds


def _field(name: str, field: str, given: object) -> Field:
    return Field("Breaker", field, given, name=name)
