"""Series that are there before anything happens.

A counter that first appears as 1 has never risen: an alert on its increase stays quiet. So what alerts and dashboards
ask for begins as 0: made from the definitions at the start, the most important first, within half of the series budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from headrace.observability.label import (
    BreakerState,
    DiscardReason,
    GroupEvent,
    RedriveResult,
    SkipReason,
    Stage,
    TriggerKind,
)
from headrace.topics.outcome import ParkReason, RunStatus

Series = tuple[str, tuple[str, ...]]
"""A family by its name without prefix, and the values of its labels in the order of the table."""


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What this process may come to count: names from the app's definitions. `group` is the members' group.

    `starts`: each source topic with a workflow that it starts; `emits`: each output topic with a workflow that emits to it;
    `scheduled`: workflows with a schedule.
    """

    workflows: Sequence[str] = ()
    handlers: Sequence[str] = ()
    breakers: Sequence[str] = ()
    sources: Sequence[str] = ()
    outputs: Sequence[str] = ()
    starts: Sequence[tuple[str, str]] = ()
    emits: Sequence[tuple[str, str]] = ()
    scheduled: Sequence[str] = ()
    group: str = ""


def expected_series(expected: Expected) -> Iterator[Series]:
    """Each counter or histogram that begins at 0, by importance."""
    yield "event_loop_blocked_total", ("",)
    yield from (("log_skipped_records_total", (reason,)) for reason in SkipReason)
    yield from (("dead_letter_redrives_total", (result,)) for result in RedriveResult)
    yield from (("kafka_rebalances_total", (expected.group, event)) for event in GroupEvent)
    yield from (("dead_letters_total", (source, "", Stage.DECODE)) for source in expected.sources)
    yield from (("outputs_refused_total", (output,)) for output in expected.outputs)
    for source, workflow in expected.starts:  # who refuses a record that can be read has a name
        yield from (("dead_letters_total", (source, workflow, stage)) for stage in (Stage.MATCH, Stage.START))
    yield from (("dead_letters_total", (output, workflow, Stage.EMIT)) for output, workflow in expected.emits)
    for workflow in expected.workflows:
        yield from (("runs_finished_total", (workflow, status)) for status in RunStatus)
        yield from (("runs_parked_total", (workflow, reason)) for reason in ParkReason)
        yield "run_start_delay_seconds", (workflow,)
    for workflow in expected.scheduled:
        yield "schedule_misfires_total", (workflow,)
        yield "runs_started_total", (workflow, TriggerKind.SCHEDULE)
    for breaker in expected.breakers:
        yield from (("circuit_breaker_transitions_total", (breaker, state)) for state in BreakerState)
    yield from (("event_loop_blocked_total", (handler,)) for handler in expected.handlers)
    yield from (("runs_started_total", (workflow, TriggerKind.EVENT)) for workflow in expected.workflows)
    yield from (("outputs_resent_total", (output,)) for output in expected.outputs)
    for source in expected.sources:
        yield "trace_contexts_refused_total", (source,)
        yield from (("events_discarded_total", (source, reason)) for reason in DiscardReason)
