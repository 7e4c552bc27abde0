"""What there is beside runs: workflows, topics, figures, and what answers here. And events, taken in."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from headrace.service.api import answers as a
from headrace.service.api.event_intake import publish
from headrace.service.api.route import Answer, Asked
from headrace.service.api.run_start import no_such_workflow
from headrace.service.definitions.schedule import shown
from headrace.service.definitions.trigger import EventTrigger
from headrace.service.loop_turn import in_turns
from headrace.service.topic_lag import topic_lag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.handlers.definition import Handler
    from headrace.service.api.facade import Facade
    from headrace.service.definitions.app import AnyWorkflow
    from headrace.service.definitions.schedule import Schedule
    from headrace.service.run_view.queries import RunCounts


async def publish_events(facade: Facade, asked: Asked) -> Answer:
    """POST events."""
    return Answer(body=await publish(facade, asked), status=HTTPStatus.ACCEPTED)


async def list_workflows(facade: Facade, _asked: Asked) -> Answer:
    """GET workflows."""
    return Answer(body=await _listed(facade))


async def _listed(facade: Facade) -> bytes:
    """All workflows as JSON, made once for all who ask while the counts are the same."""
    async with facade.listing:
        counts = await facade.counts()
        if facade.listed is None or facade.listed[0] is not counts:
            runs = _by_workflow(counts)
            items = [_facts(facade, each, runs) async for each in in_turns(facade.shared.app.newest())]
            facade.listed = counts, msgspec.json.encode(a.WorkflowList(items=tuple(items), notes=counts.notes))
        return facade.listed[1]


async def get_workflow(facade: Facade, asked: Asked) -> Answer:
    """GET workflows/{namespace}/{workflow}."""
    name = (asked.path["namespace"], asked.path["workflow"])
    found = facade.shared.app.newest_of(*name)
    if found is None:
        raise no_such_workflow(*name)
    facts = _facts(facade, found, _by_workflow(await facade.counts()))
    handlers = tuple(_handler(each) for each in sorted(facade.shared.app.handlers, key=lambda each: each.name))
    return Answer(body=a.WorkflowDetail(**msgspec.structs.asdict(facts), handlers=handlers))


async def list_topics(facade: Facade, _asked: Asked) -> Answer:
    """GET topics."""
    app = facade.settings.app.name
    rows = await topic_lag(facade.shared.log, app, facade.shared.app.source_topics)
    return Answer(body=a.TopicLagList(items=tuple(rows)))


async def stats(facade: Facade, _asked: Asked) -> Answer:
    """GET stats."""
    counts = await facade.counts()
    lag: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for each in facade.snapshot().lag:
        lag[each.topic].append((each.records, each.seconds))
    return Answer(
        body=a.Stats(
            runs=counts.counts,
            lag=tuple(
                a.LagFacts(
                    topic=topic, records=sum(records for records, _ in rows), seconds=max(age for _, age in rows)
                )
                for topic, rows in sorted(lag.items())
            ),
            bottleneck=_bottleneck(facade),
            stopped=tuple(
                a.StoppedFacts(topic=at.topic, partition=at.partition, reason=reason)
                for at, reason in sorted(facade.shared.stops.items())
            ),
            notes=counts.notes,
        )
    )


async def about(facade: Facade, _asked: Asked) -> Answer:
    """GET about."""
    settings = facade.settings
    return Answer(
        body=a.About(
            app=settings.app.name,
            version=version("headrace"),
            environment=settings.app.environment,
            backend=settings.log.backend,
            instance=facade.shared.instance,
            console=a.ConsoleFacts(trace_url=settings.api.trace_url),
        )
    )


def _bottleneck(facade: Facade) -> a.BottleneckFacts | None:
    newest = facade.forecast()
    if newest is None or newest.bottleneck is None:
        return None
    found = newest.bottleneck
    used = next((use.ratio for use in newest.uses if use.resource == found.resource), 1.0)
    relief = found.relief if math.isfinite(found.relief) else None
    return a.BottleneckFacts(resource=found.resource, utilization=used, relief=relief)


def _by_workflow(counts: RunCounts) -> dict[tuple[str, str], Counter[str]]:
    runs: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in counts.counts:
        runs[row.namespace, row.workflow][row.status] += row.runs
    return runs


def _facts(facade: Facade, workflow: AnyWorkflow, runs: Mapping[tuple[str, str], Counter[str]]) -> a.WorkflowFacts:
    name = (workflow.namespace, workflow.name)
    return a.WorkflowFacts(
        namespace=workflow.namespace,
        workflow=workflow.name,
        version=workflow.version,
        versions=facade.shared.app.versions[name],
        description=workflow.description,
        triggers=(*map(_trigger, workflow.triggers), *map(_scheduled, workflow.schedules)),
        key=workflow.key is not None,
        on_conflict=str(workflow.on_conflict),
        timeout_ms=workflow.timeout_ms,
        emits=workflow.emits,
        runs=dict(runs.get(name, {})),
    )


def _trigger(trigger: object) -> a.TriggerFacts:
    if not isinstance(trigger, EventTrigger):
        return a.TriggerFacts(kind=type(trigger).__name__.lower(), words=str(trigger))
    return a.TriggerFacts(
        kind="event",
        topic=trigger.topic,
        type=trigger.type,
        attributes=dict(trigger.attributes or {}),
        filter=trigger.filter is not None,
    )


def _scheduled(schedule: Schedule) -> a.TriggerFacts:
    return a.TriggerFacts(kind="schedule", words=shown(schedule.spec))


def _handler(handler: Handler[*tuple[object, ...], object]) -> a.HandlerFacts:
    return a.HandlerFacts(
        name=handler.name,
        timeout_ms=handler.timeout_ms,
        breaker=None if handler.breaker is None else handler.breaker.name,
        pool=None if handler.pool is None else handler.pool.name,
    )
