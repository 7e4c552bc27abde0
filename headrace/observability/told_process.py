"""What is told of a process: its policies, its loop and limits, its API, what it depends on, and its life. See `observer.py` for what holds of every struct."""

from __future__ import annotations

import msgspec

from headrace.observability.label import BreakerResult, BreakerState, Dependency, Resource


class HttpAnswered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The API has answered a request. `route` is a template of its table, never a path; `code` the HTTP status.

    `context_refused`: it was to start a run, with a trace context that is not sound: it was left out.
    """

    method: str
    route: str
    code: int
    duration_ms: float
    context_refused: bool = False


class HttpFailed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request that could not be answered, by no fault of its sender: a status from 500 on."""

    method: str
    route: str
    status: int
    code: str
    message: str


class BreakerChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A breaker changed its state."""

    breaker: str
    before: BreakerState
    after: BreakerState
    reason: str = ""  # for people: "failure rate 62 % of 50 calls"


class BreakerCalled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A breaker recorded a call, or held or rejected a task. `calls` > 1 tells several at once."""

    breaker: str
    result: BreakerResult
    calls: int = 1


class RateLimitPassed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An attempt got its token. `wait_ms` is ready to now, waits for breaker and pool included; 0: it was not held."""

    limiter: str
    wait_ms: float


class LoopDelayed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The event loop took `delay_ms` to come round to a callback that was ready. Measured a few times a second."""

    delay_ms: float


class LoopBlocked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The event loop did not turn for `blocked_ms` (so far).

    The one hook that is called from another thread: the watchdog's.
    """

    blocked_ms: float
    handler: str = ""  # "" if no handler is on the loop's stack
    where: str = ""  # file:line in function
    stack: tuple[str, ...] = ()  # the same for each frame from the handler inwards


class LoopFenced(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The loop stood still for so long that the group may have placed our partitions elsewhere: nothing is begun in them until they are announced anew."""

    stalled_ms: float
    partitions: int


class ResourceMeasured(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How much of a limit of this process is used. `short`: so much that people should know; `changed`: since the last time."""

    resource: Resource
    used: int
    limit: int
    short: bool
    changed: bool


class OutageBegan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something outside does not answer. Told once per outage."""

    dependency: Dependency
    name: str = ""  # a topic's name, an address without credentials
    message: str = ""
    retry_after_ms: float | None = None


class OutageEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """It answers again."""

    dependency: Dependency
    name: str = ""
    duration_ms: float


class ServiceStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The instance works: settings read, topics checked, ports open."""

    app: str
    instance: str
    version: str
    backend: str
    workflows: int
    handlers: int


class ServiceStopping(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The stop began."""

    reason: str  # a signal's name, or what failed
    grace_ms: float


class ServiceStopped(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything is flushed."""

    duration_ms: float
    attempts_left: int = 0  # abandoned at the end of the grace
