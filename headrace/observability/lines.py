"""What the lines of the log observer have in common: where they go, and how they name a trace. See `log_observer.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.observability.silent import Silent
from headrace.topics.trace_context import attempt_span_id, span_id_in, trace_id_in

if TYPE_CHECKING:
    from headrace.observability.logs import Logs
    from headrace.observability.told_run import AttemptEnded, AttemptStarted, HandlerAbandoned


class Lines(Silent):
    """Writes lines to `logs`."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs


def rounded_ms(duration_ms: float | None) -> float | None:
    """Microseconds are enough."""
    return None if duration_ms is None else round(duration_ms, 3)


def of_run(traceparent: str | None) -> dict[str, Any]:
    """The fields of a line that name the run's anchor; none if it is not traced."""
    return {} if traceparent is None else {"trace_id": trace_id_in(traceparent), "span_id": span_id_in(traceparent)}


def of_attempt(attempt: AttemptStarted | AttemptEnded | HandlerAbandoned) -> dict[str, Any]:
    """The fields of a line that name the attempt's own span; none if the run is not traced."""
    traceparent = attempt.traceparent
    if traceparent is None:
        return {}
    return {"trace_id": trace_id_in(traceparent), "span_id": attempt_span_id(attempt.run, attempt.step, attempt.number)}
