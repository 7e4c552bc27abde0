"""A rate limit: so many attempts begin in a time, and no more.

Pure. A token bucket: an attempt takes a token to begin, and tokens come back evenly. Who waits for one, and in which
order, is `dispatch.py`'s. All arithmetic is in whole numbers, so that nothing is lost to rounding: credit is counted
in tokens times `per_ms`, of which each millisecond brings `limit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from headrace.handlers.duration import Duration, milliseconds
from headrace.handlers.policy import Field, check_same, checked_name
from headrace.topics.errors import Fatal

_LIMIT_MAX: Final = 1_000_000
"""More begin in no process, and sums stay far inside 64 bits."""


@dataclass(frozen=True, slots=True, init=False)
class RateLimit:
    """At most `limit` attempts begin in each `per` in this process, over all handlers that name it: a token bucket.

    `limit` and `burst` are whole numbers from 1 to 1 000 000. `burst` is how many may begin at once after a rest; None: `limit`. So within any time t begin at
    most `burst + limit * t / per`; `burst=1` spaces them evenly. Other attempts are held, in order; that uses none of a task's attempts. A retry is an attempt.
    Several processes have a bucket each: divide the service's limit by their number.
    """

    name: str
    limit: int
    per_ms: int
    burst: int

    def __init__(self, name: str, *, limit: int = 100, per: Duration = "1s", burst: int | None = None) -> None:
        """DefinitionError (HR2030, HR2036) names the field that must be changed."""
        put = object.__setattr__
        put(self, "name", checked_name("RateLimit", name))
        put(self, "limit", _count(self.name, "limit", limit))
        put(self, "per_ms", milliseconds(per, name="RateLimit.per"))
        put(self, "burst", self.limit if burst is None else _count(self.name, "burst", burst))


class RateLimitStatistics(msgspec.Struct, frozen=True):
    """A moment's counts. `tokens`: how many attempts could begin now; `begun`: how many have, since the process's start."""

    name: str
    limit: int
    per_ms: int
    burst: int
    tokens: int
    begun: int


class RateLimitState:
    """One rate limit in this process. `now_ms` must come from one clock; if it steps back, the newest time seen counts."""

    __slots__ = ("_at_ms", "_begun", "_credit", "_full", "rate_limit")

    def __init__(self, rate_limit: RateLimit) -> None:
        self.rate_limit = rate_limit
        self._full = rate_limit.burst * rate_limit.per_ms
        self._credit = self._full  # as of `_at_ms`
        self._at_ms = 0
        self._begun = 0

    def next_ms(self) -> int:
        """When the next token is there; a time that is over: there is one."""
        missing = self.rate_limit.per_ms - self._credit
        return self._at_ms + max(0, -(-missing // self.rate_limit.limit))  # rounded up

    def try_acquire(self, now_ms: int) -> bool:
        """Take a token if there is one."""
        if now_ms < self.next_ms():
            return False
        if now_ms > self._at_ms:
            self._credit = self._credit_at(now_ms)
            self._at_ms = now_ms
        self._credit -= self.rate_limit.per_ms
        if self._credit < 0:
            raise Fatal(f"Rate limit {self.rate_limit.name}: a token was taken that was not there.", code="HR9010")
        self._begun += 1
        return True

    def statistics(self, now_ms: int) -> RateLimitStatistics:
        """A frozen snapshot."""
        of = self.rate_limit
        return RateLimitStatistics(
            name=of.name,
            limit=of.limit,
            per_ms=of.per_ms,
            burst=of.burst,
            tokens=self._credit_at(now_ms) // of.per_ms,
            begun=self._begun,
        )

    def _credit_at(self, now_ms: int) -> int:
        return min(self._full, self._credit + max(0, now_ms - self._at_ms) * self.rate_limit.limit)


class RateLimitRegistry:
    """The rate limits of this process, by name."""

    def __init__(self) -> None:
        self._states: dict[str, RateLimitState] = {}

    def state(self, rate_limit: RateLimit) -> RateLimitState:
        """The limit's state. DefinitionError (HR2037): the name is taken by a limit with other settings."""
        known = self._states.setdefault(rate_limit.name, RateLimitState(rate_limit))
        check_same("rate limit", known.rate_limit, rate_limit, name=rate_limit.name)
        return known

    def statistics(self, now_ms: int) -> tuple[RateLimitStatistics, ...]:
        """All limits, in the order of their first use."""
        return tuple(state.statistics(now_ms) for state in self._states.values())


def _count(name: str, field: str, given: object) -> int:
    return Field("RateLimit", field, given, name=name).count(_LIMIT_MAX)
