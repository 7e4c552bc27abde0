"""The matcher: which workflows an event starts, and why it starts none.

Pure: no clock, no I/O; user code (filters, keys, validators of inputs) is called, and whatever it raises becomes a `Refused`. Cost does not grow with the
number of triggers: a topic and a type lead to the candidates, attributes narrow them, filters come last. Called by the router for each source record, and
by `event match`, which asks for the reasons (`explain`).
"""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Callable, Iterable
from enum import StrEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

import msgspec

from headrace.handlers.payload import PayloadError
from headrace.service.definitions.app import AnyWorkflow, newest
from headrace.service.definitions.definition_code import FILTER_FAILED, INPUT_REFUSED, KEY_FAILED, KEY_REFUSED
from headrace.service.definitions.place import Place
from headrace.topics.command import OnConflict, SourceRecord, Start
from headrace.topics.dead_letter import Stage, one_line

if TYPE_CHECKING:
    from headrace.service.definitions.trigger import EventTrigger
    from headrace.topics.event import DecodedEvent, Event, EventMeta
    from headrace.topics.log import LogRecord

_SHOWN_CHARS_MAX = 200  # of a stranger's text in a reason
_NAMES_MAX = 5  # types or workflows that a reason lists


class Matched(msgspec.Struct, frozen=True):
    """The event starts these, one per workflow, at least one. The router gives each its identity (`start_digest`)."""

    starts: tuple[Start, ...]


class Unmatched(msgspec.Struct, frozen=True):
    """No trigger wants the event. `reason` is for people and the same for events that failed in the same way."""

    reason: str


class Refused(msgspec.Struct, frozen=True):
    """A dead letter: this event can start nothing, whatever else it matches. `error` quotes no payload of ours."""

    stage: Stage
    code: str
    error: str
    workflow: str


class Clause(StrEnum):
    """What decided about one trigger."""

    MATCHES = "matches"
    TOPIC = "topic"
    TYPE = "type"
    ATTRIBUTES = "attributes"
    FILTER = "filter"
    INPUT = "input"
    KEY = "key"


class Verdict(msgspec.Struct, frozen=True):
    """One trigger's answer to one event: the first clause that said no and what it said, or `MATCHES` and "".

    `stage` is set where the record would be a dead letter.
    """

    workflow: AnyWorkflow
    trigger: EventTrigger
    clause: Clause
    reason: str = ""
    stage: Stage | None = None


class Matcher:
    """The compiled triggers of the newest versions of some workflows. Immutable."""

    def __init__(self, workflows: Iterable[AnyWorkflow]) -> None:
        self._workflows = newest(tuple(workflows))
        by_topic: dict[str, list[_Candidate]] = {}
        for workflow in self._workflows:
            for trigger in workflow.triggers:
                by_topic.setdefault(trigger.topic, []).append(_Candidate(workflow, trigger))
        self._topics = {topic: _Topic(candidates) for topic, candidates in by_topic.items()}

    @property
    def topics(self) -> tuple[str, ...]:
        """The source topics: those with a trigger on them, sorted."""
        return tuple(sorted(self._topics))

    def match(self, event: DecodedEvent, record: LogRecord) -> Matched | Unmatched | Refused:
        """What this source record starts. All filters are asked first, then all inputs are decoded, then keys taken: one failure and nothing starts."""
        meta = event.meta
        topic = self._topics.get(meta.topic)
        if topic is None:
            return Unmatched(f"no trigger on topic {meta.topic}")
        candidates = topic.candidates(meta)
        if not candidates:
            return Unmatched(topic.why_not(meta))
        wanted = _wanted(candidates, event)
        if isinstance(wanted, Refused):
            return wanted
        if not wanted:
            return Unmatched(f"filter false ({_listed(candidate.workflow.name for candidate in candidates)})")
        return _starts(wanted, event, record)

    def explain(self, event: DecodedEvent) -> tuple[Verdict, ...]:
        """Every trigger's verdict, in the order of workflow names. Calls filters and keys as `match` does."""
        return tuple(
            _verdict(_Candidate(workflow, trigger), event)
            for workflow in self._workflows
            for trigger in workflow.triggers
        )


def key_of(workflow: AnyWorkflow, decoded: object) -> str | Refused | None:
    """The key that the workflow's function takes from its typed input; None: it has none."""
    return None if workflow.key is None else _key(workflow, decoded)


class _Candidate:
    """A trigger of a workflow."""

    __slots__ = ("attributes", "filter", "trigger", "type", "workflow")

    def __init__(self, workflow: AnyWorkflow, trigger: EventTrigger) -> None:
        self.workflow = workflow
        self.trigger = trigger
        self.type = trigger.type
        self.attributes = tuple((trigger.attributes or {}).items())
        self.filter: Callable[[Event[Any]], bool] | None = trigger.filter

    def has_attributes(self, meta: EventMeta) -> bool:
        return all(meta.attribute(name) == value for name, value in self.attributes)


class _Bucket:
    """Candidates of one topic and type. Those with attributes are found by the value of their first one, so that thousands cost as much as one."""

    __slots__ = ("_by_attribute", "_plain")

    def __init__(self, candidates: Iterable[_Candidate]) -> None:
        plain: list[_Candidate] = []
        by_attribute: dict[str, dict[str, list[_Candidate]]] = {}
        for candidate in candidates:
            if not candidate.attributes:
                plain.append(candidate)
                continue
            name, value = candidate.attributes[0]
            by_attribute.setdefault(name, {}).setdefault(value, []).append(candidate)
        self._plain = tuple(plain)
        self._by_attribute = {
            name: {value: tuple(found) for value, found in values.items()} for name, values in by_attribute.items()
        }

    def find(self, meta: EventMeta) -> tuple[_Candidate, ...]:
        if not self._by_attribute:
            return self._plain
        found = list(self._plain)
        for name, values in self._by_attribute.items():
            value = meta.attribute(name)
            if value is not None:
                found.extend(candidate for candidate in values.get(value, ()) if candidate.has_attributes(meta))
        return tuple(found)


def _bucket(*numbered: list[tuple[int, _Candidate]]) -> _Bucket:
    """Candidates of several lists, in the order of their numbers."""
    return _Bucket(candidate for _, candidate in heapq.merge(*numbered, key=itemgetter(0)))


class _Topic:
    """The candidates of one topic: by type, and those that take any type."""

    __slots__ = ("_any_type", "_by_type", "_types")

    def __init__(self, candidates: list[_Candidate]) -> None:
        by_type: dict[str | None, list[tuple[int, _Candidate]]] = {}
        for place, candidate in enumerate(candidates):
            by_type.setdefault(candidate.type, []).append((place, candidate))
        any_type = by_type.pop(None, [])
        self._by_type = {type_: _bucket(found, any_type) for type_, found in by_type.items() if type_ is not None}
        self._any_type = _bucket(any_type) if any_type else None
        self._types = _listed(self._by_type)  # for people: once, not for each event of 10 000 that nobody waits for

    def candidates(self, meta: EventMeta) -> tuple[_Candidate, ...]:
        bucket = self._by_type.get(meta.type, self._any_type)
        return () if bucket is None else bucket.find(meta)

    def why_not(self, meta: EventMeta) -> str:
        shown = one_line(meta.type, _SHOWN_CHARS_MAX)
        if meta.type not in self._by_type and self._any_type is None:
            return f"type {shown} not among {self._types}"
        return f"attributes differ (type {shown})"


def _wanted(candidates: tuple[_Candidate, ...], event: DecodedEvent) -> list[_Candidate] | Refused:
    """The candidates whose filters say yes, one per workflow."""
    plain: Event[Any] | None = None
    wanted: dict[str, _Candidate] = {}
    for candidate in candidates:
        place = f"{candidate.workflow.namespace}/{candidate.workflow.name}"
        if place in wanted:
            continue
        if candidate.filter is not None:
            if plain is None:
                plain = event.plain()
            answer = _ask(candidate.filter, plain, candidate.workflow)
            if isinstance(answer, Refused):
                return answer
            if not answer:
                continue
        wanted[place] = candidate
    return list(wanted.values())


def _ask(function: Callable[[Event[Any]], object], event: Event[Any], workflow: AnyWorkflow) -> bool | Refused:
    try:
        answer = function(event)
        if answer is True or answer is False:
            return answer
        if inspect.isawaitable(answer):
            return Refused(
                Stage.MATCH, FILTER_FAILED, f"The filter gave {_discarded(answer)}, not an answer.", workflow.name
            )
        return bool(answer)
    except BaseException as error:  # noqa: BLE001 - user code: SystemExit must not end the service
        return Refused(Stage.MATCH, FILTER_FAILED, f"The filter raised {_described(error)}", workflow.name)


def _starts(wanted: list[_Candidate], event: DecodedEvent, record: LogRecord) -> Matched | Refused:
    inputs: list[object] = []
    for candidate in wanted:
        decoded = _decoded(candidate.workflow, event.data)
        if isinstance(decoded, Refused):
            return decoded
        inputs.append(decoded)
    starts: list[Start] = []
    for candidate, decoded in zip(wanted, inputs, strict=True):
        workflow = candidate.workflow
        key = None if workflow.key is None else _key(workflow, decoded)
        if isinstance(key, Refused):
            return key
        starts.append(_start(workflow, key, event, record))
    return Matched(tuple(starts))


def _decoded(workflow: AnyWorkflow, data: msgspec.Raw) -> object | Refused:
    try:
        return workflow.input_type.decode(bytes(data))
    except PayloadError as error:
        return Refused(
            Stage.START, INPUT_REFUSED, f"The data does not fit the input of {workflow.name}: {error}", workflow.name
        )
    except BaseException as error:  # noqa: BLE001 - validators are user code
        message = f"Decoding the input of {workflow.name} raised {_described(error)}"
        return Refused(Stage.START, INPUT_REFUSED, message, workflow.name)


def _key(workflow: AnyWorkflow, decoded: object) -> str | Refused:
    assert workflow.key is not None  # noqa: S101 - asked by the caller
    try:
        key = cast("object", workflow.key(decoded))
        if isinstance(key, str) and key:
            key.encode()
            return key if type(key) is str else str.__str__(key)
    except UnicodeEncodeError:
        return Refused(Stage.MATCH, KEY_REFUSED, "The key has a lone surrogate and is no text.", workflow.name)
    except BaseException as error:  # noqa: BLE001 - user code
        return Refused(Stage.MATCH, KEY_FAILED, f"The key function raised {_described(error)}", workflow.name)
    wrong = "The key is empty." if isinstance(key, str) else f"The key is {_discarded(key)}, not text."
    return Refused(Stage.MATCH, KEY_REFUSED, wrong, workflow.name)


def _start(workflow: AnyWorkflow, key: str | None, event: DecodedEvent, record: LogRecord) -> Start:
    trace = event.trace
    return Start(
        namespace=workflow.namespace,
        workflow=workflow.name,
        version=workflow.version,
        input=event.data,
        key=key,
        policy=workflow.on_conflict,
        timeout_ms=workflow.timeout_ms,
        event=event.meta,
        event_at_ms=record.timestamp_ms,
        traceparent=None if trace is None else trace.traceparent,
        tracestate=(trace.state or None) if trace is not None else None,
        record=_source(record) if workflow.on_conflict is OnConflict.REJECT else None,
    )


def _source(record: LogRecord) -> SourceRecord:
    return SourceRecord(key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms)


def _verdict(candidate: _Candidate, event: DecodedEvent) -> Verdict:
    workflow, trigger, meta = candidate.workflow, candidate.trigger, event.meta

    def no(clause: Clause, reason: str, stage: Stage | None = None) -> Verdict:
        return Verdict(workflow, trigger, clause, one_line(reason), stage)

    if trigger.topic != meta.topic:
        return no(Clause.TOPIC, f"topic {meta.topic} is not {trigger.topic}")
    if trigger.type is not None and trigger.type != meta.type:
        return no(Clause.TYPE, f"type {meta.type} is not {trigger.type}")
    for name, value in candidate.attributes:
        found = meta.attribute(name)
        if found != value:
            shown = "not set" if found is None else f"{found!r:.{_SHOWN_CHARS_MAX}}"
            return no(Clause.ATTRIBUTES, f"{name} is {shown}, not {value!r}")
    answer = True if trigger.filter is None else _ask(trigger.filter, event.plain(), workflow)
    if isinstance(answer, Refused):
        return no(Clause.FILTER, answer.error, answer.stage)
    if not answer:
        return no(Clause.FILTER, "filter false")
    decoded = _decoded(workflow, event.data)
    if isinstance(decoded, Refused):
        return no(Clause.INPUT, decoded.error, decoded.stage)
    key = None if workflow.key is None else _key(workflow, decoded)
    if isinstance(key, Refused):
        return no(Clause.KEY, key.error, key.stage)
    return Verdict(workflow, trigger, Clause.MATCHES)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(set(names))
    more = f" and {len(ordered) - _NAMES_MAX} more" if len(ordered) > _NAMES_MAX else ""
    return ", ".join(ordered[:_NAMES_MAX]) + more


def _described(error: BaseException) -> str:
    """The error's class and the line of the user's code. Its text may quote the payload, so it stays out."""
    trace = error.__traceback__
    if trace is not None and trace.tb_next is not None:  # the first frame is this file's
        trace = trace.tb_next
        return f"{type(error).__name__} at {Place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)}"
    return type(error).__name__


def _discarded(value: object) -> str:
    """A value's kind, in words; a coroutine is closed, so that nobody warns that it was never awaited."""
    if inspect.iscoroutine(value):
        value.close()
        return "a coroutine"
    return f"of type {type(value).__name__}"
