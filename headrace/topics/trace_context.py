"""W3C trace context on the wire: read strictly, kept with the run, written to what leaves. Knows no OpenTelemetry.

A bad context is never an error: it is ignored and a new trace begins (an event must not be lost for its telemetry). Ids
that Headrace makes derive from the run id, so that logs, history and a replay on another owner all name the same trace.
https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SAMPLED = 0x01
TRACEPARENT_LENGTH = 55
TRACEPARENT_LENGTH_MAX = 256  # a later version may append fields; what is longer than this is noise
TRACESTATE_LENGTH_MAX = 512  # the least that everyone must forward, and our most
TRACESTATE_MEMBERS_MAX = 32

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_MEMBER = re.compile(
    r"(?P<key>[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=(?P<value>[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])",
    re.ASCII,
)
_OURS = "headrace"
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class TraceContext(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A span's place in its trace.

    Ids are lower-case hex (32 and 16 digits, never all zero), flags 0 to 255, and `tracestate` ("" if there is none).
    """

    trace_id: str
    span_id: str
    flags: int = SAMPLED
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The `traceparent` header, in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded this trace."""
        return bool(self.flags & SAMPLED)


def parse_traceparent(text: str) -> TraceContext | None:
    """Read a `traceparent`; `None` if it is not sound.

    Of a later version the known fields are read, and only the sampled flag is kept.
    """
    match = _TRACEPARENT.match(text)
    if match is None:
        return None
    version, trace_id, span_id, flags = match.groups()
    if trace_id == _NO_TRACE or span_id == _NO_SPAN or version == "ff":
        return None
    if version == "00":
        return TraceContext(trace_id, span_id, int(flags, 16)) if len(text) == TRACEPARENT_LENGTH else None
    if len(text) > TRACEPARENT_LENGTH_MAX or (len(text) > TRACEPARENT_LENGTH and text[TRACEPARENT_LENGTH] != "-"):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & SAMPLED)


def parse_tracestate(text: str) -> str:
    """Read a `tracestate`: its members, in order, without the white space around them.

    "" if it is malformed, too long or has a key twice.
    """
    if not text or len(text) > TRACESTATE_LENGTH_MAX:
        return ""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    if len(members) > TRACESTATE_MEMBERS_MAX:
        return ""
    keys: set[str] = set()
    for member in members:
        match = _MEMBER.fullmatch(member)
        if match is None or match["key"] in keys:
            return ""
        keys.add(match["key"])
    return ",".join(members)


def trace_id_in(traceparent: str) -> str:
    """The trace id of a sound `traceparent`, without reading the rest."""
    return traceparent[3:35]


def span_id_in(traceparent: str) -> str:
    """The span id of a sound `traceparent`, likewise."""
    return traceparent[36:52]


def received_context(
    traceparents: Iterable[bytes], tracestates: Iterable[bytes], extensions: Mapping[str, str]
) -> TraceContext | None:
    """The producer's context of a record: its plain headers, else the CloudEvents tracing extension.

    A bad plain `traceparent` is no reason to look further.
    Several `traceparent` headers are a bad one, several `tracestate` headers are one list. The state counts only beside
    its own parent.
    """
    parents = list(traceparents)
    if parents:
        parent = _ascii(parents[0]) if len(parents) == 1 else ""
        state = ",".join(map(_ascii, tracestates))
    else:
        parent = extensions.get("traceparent", "")
        state = extensions.get("tracestate", "") if parent else ""
    context = parse_traceparent(parent)
    if context is None or not state:
        return context
    return with_state(context, parse_tracestate(state))


def with_state(context: TraceContext, state: str) -> TraceContext:
    """The same span with another `tracestate`."""
    return TraceContext(context.trace_id, context.span_id, context.flags, state)


def kept_context(traceparent: str | None, tracestate: str | None) -> TraceContext | None:
    """A context from the two headers as a start keeps them: they were judged when the record was decoded."""
    context = parse_traceparent(traceparent) if traceparent else None
    return with_state(context, tracestate) if context is not None and tracestate else context


def trace_id_of(run_id: str) -> str:
    """The trace id of a run: 32 hex digits of SHA-256. The same for ever; people and tools may compute it."""
    return _digest(f"headrace.trace\n{run_id}", 32)


def span_id_of(run_id: str, text: str) -> str:
    """The id of one span of a run, 16 hex digits of SHA-256.

    `text` names the span within its run: `start`, `end`, or a task reference and attempt number.
    """
    return _digest(f"headrace.span\n{run_id}\n{text}", 16)


def attempt_span_id(run: str, step: str, number: int) -> str:
    """The span id of an attempt, 16 hex digits."""
    return span_id_of(run, f"{step}#{number}")


def attempt_context(anchor: TraceContext, run: str, step: str, number: int) -> TraceContext:
    """The context of an attempt: what its calls and the records made from it carry. 1 us."""
    return TraceContext(anchor.trace_id, attempt_span_id(run, step, number), anchor.flags, anchor.state)


def attempt_traceparent(run: str, step: str, number: int, anchor: str | None = None) -> str:
    """The `traceparent` of an attempt.

    `anchor`: the run's own, if it is known; else the run's id says the trace, and it is not sampled. 1 us.
    """
    if anchor is not None and len(anchor) == 55:
        return f"{anchor[:36]}{attempt_span_id(run, step, number)}{anchor[52:]}"
    return f"00-{trace_id_of(run)}-{attempt_span_id(run, step, number)}-00"


@lru_cache(maxsize=4_096)  # asked for a run's start, attempts and outputs: four digests each time
def context_of_run(run_id: str, producer: TraceContext | None = None, *, flags: int = SAMPLED) -> TraceContext:
    """The context of a run's anchor span: a trace of its own, the producer's context kept in its `tracestate`."""
    state = "" if producer is None else with_producer(producer.state, producer.traceparent)
    return TraceContext(trace_id_of(run_id), span_id_of(run_id, "start"), flags, state)


def with_producer(tracestate: str, traceparent: str) -> str:
    """Put the producer's `traceparent` in front of a sound `tracestate`, as our member.

    Where there are too many members, the last ones go.
    A member of ours that was there already is replaced: the producer is the nearest one.
    """
    members = [member for member in tracestate.split(",") if member and not member.startswith(_OURS + "=")]
    members.insert(0, f"{_OURS}={traceparent}")
    del members[TRACESTATE_MEMBERS_MAX:]
    while len(members) > 1 and sum(map(len, members)) + len(members) - 1 > TRACESTATE_LENGTH_MAX:
        members.pop()
    return ",".join(members)


def producer_of(tracestate: str) -> TraceContext | None:
    """The producer's context that `with_producer` kept, without a state.

    `None` if there is none or somebody damaged it.
    """
    for member in tracestate.split(","):
        if member.startswith(_OURS + "="):
            return parse_traceparent(member[len(_OURS) + 1 :])
    return None


def _digest(text: str, digits: int) -> str:
    found = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    return found if found.strip("0") else "1".rjust(digits, "0")


def _ascii(raw: bytes) -> str:
    return raw.decode("ascii", "replace")
