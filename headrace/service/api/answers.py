"""The bodies of answers, as the OpenAPI document and its clients know them. Keys are added, never renamed.

What the command line prints with `-o json` has the same form here: `RunSummary`, `HistoryEntry`, `TopicLag`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.observability.label import StopReason
from headrace.service.run_view.history_entry import HistoryEntry
from headrace.service.run_view.queries import RunCount
from headrace.service.run_view.run_detail import RunDetail
from headrace.service.run_view.summary import RunSummary
from headrace.service.topic_lag import TopicLag


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs, newest first. `next` is the cursor of the page behind it; `notes` say what may be missing."""

    items: tuple[RunSummary, ...]
    next: str | None
    notes: tuple[str, ...] = ()


class HistoryList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a run's records, oldest first."""

    items: tuple[HistoryEntry, ...]
    next: str | None
    notes: tuple[str, ...] = ()


def _flat() -> type[msgspec.Struct]:
    """`RunDetail` with the members of its summary beside its own: whatever is added there is added here."""
    both = (*msgspec.structs.fields(RunSummary), *msgspec.structs.fields(RunDetail))
    members: list[Any] = []
    for field in both:
        if field.name == "summary":
            continue
        if field.required:
            members.append((field.name, field.type))
        elif field.default is not msgspec.NODEFAULT:
            members.append((field.name, field.type, field.default))
        else:
            members.append((field.name, field.type, msgspec.field(default_factory=field.default_factory)))
    return msgspec.defstruct("RunFacts", members, frozen=True, kw_only=True)


RunFacts = _flat()
"""One run in full: what `run get -o json` prints."""


class CommandDone(msgspec.Struct, frozen=True, kw_only=True):
    """A command took effect: `status` is the run's behind it."""

    id: str
    command: Literal["cancel", "resume", "dismiss"]
    status: str = ""


class RetryDone(msgspec.Struct, frozen=True, kw_only=True):
    """A retry has begun: `id` is the new run's; it has the results of so many steps."""

    id: str
    command: Literal["retry"]
    retry_of: str
    copied: int


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason` is for people; it is kept in the run log."""

    reason: str = ""


class RetryRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_task": "from"}):
    """`from`: copy only what had finished before this task had: its reference, or its handler."""

    from_task: str | None = None


class EmptyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing is to be said."""


class TriggerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What starts a workflow. For `event`: topic, type (null: any), attributes and whether a filter decides. For others `words` says it."""

    kind: str
    topic: str | None = None
    type: str | None = None
    attributes: dict[str, str] = {}
    filter: bool = False
    words: str = ""


class WorkflowFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow: its newest version, the versions that are loaded here, and its runs by status."""

    namespace: str
    workflow: str
    version: str
    versions: tuple[str, ...]
    description: str
    triggers: tuple[TriggerFacts, ...]
    key: bool
    on_conflict: str
    timeout_ms: int | None
    emits: tuple[str, ...]
    runs: dict[str, int]


class HandlerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One handler of the app, by its policies."""

    name: str
    timeout_ms: int | None
    breaker: str | None
    pool: str | None


class WorkflowDetail(WorkflowFacts, frozen=True, kw_only=True):
    """The same with the handlers of the app: which of them a workflow calls is not known before it does."""

    handlers: tuple[HandlerFacts, ...]


class WorkflowList(msgspec.Struct, frozen=True, kw_only=True):
    """All workflows of the app, by namespace and name."""

    items: tuple[WorkflowFacts, ...]
    next: None = None
    notes: tuple[str, ...] = ()


class TopicLagList(msgspec.Struct, frozen=True, kw_only=True):
    """What `topic lag -o json` prints."""

    items: tuple[TopicLag, ...]
    next: None = None


class LagFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How far behind this process is in what it reads of one topic; `seconds` is the age of the oldest record not done."""

    topic: str
    records: int
    seconds: float


class BottleneckFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What limits this process now, how much of it is used, and how many times as much would pass without it."""

    resource: str
    utilization: float
    relief: float | None


class StoppedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that stands still until somebody acts."""

    topic: str
    partition: int
    reason: StopReason


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The overview. `runs` are of the whole app; `lag`, `bottleneck` and `stopped` of the process that answers."""

    runs: tuple[RunCount, ...]
    lag: tuple[LagFacts, ...]
    bottleneck: BottleneckFacts | None
    stopped: tuple[StoppedFacts, ...]
    notes: tuple[str, ...] = ()


class ConsoleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """For the console: `trace_url` has `{trace_id}` in it, or is empty."""

    trace_url: str


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What answers here."""

    app: str
    version: str
    environment: str
    backend: str
    instance: str
    console: ConsoleFacts


def run_facts(detail: RunDetail, *, producers_trace: bool) -> msgspec.Struct:
    """One run, flat. `producers_trace`: the producer's trace goes on (telemetry.parent_from_kafka)."""
    members: dict[str, Any] = {**msgspec.structs.asdict(detail.summary), **msgspec.structs.asdict(detail)}
    del members["summary"]
    if producers_trace and detail.producer_trace_id and not detail.parent:
        members["trace_id"] = detail.producer_trace_id
    return RunFacts(**members)
