"""Every path of the API: what the server answers and what the OpenAPI document says come from this one table."""

from __future__ import annotations

from typing import Any, Final

from headrace.service.api import answers as a
from headrace.service.api import overview_routes, run_routes, stream_route
from headrace.service.api.asked_values import LIMIT_MAX
from headrace.service.api.event_intake import PublishedEvents
from headrace.service.api.route import JSON, Parameter, Route
from headrace.service.api.run_start import StartedRun, StartRequest
from headrace.service.run_view.summary import STATUSES
from headrace.topics.event_data import STRUCTURED

V1: Final = "/api/v1"
OPENAPI: Final = "/api/openapi.json"

_WHOLE: Final[dict[str, Any]] = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}
_CURSOR = Parameter(name="cursor", description="`next` of the page before.")
_LIMIT = Parameter(name="limit", description="At most so many entries.", schema=_WHOLE)
_EVENTS: Final = (STRUCTURED, "application/cloudevents-batch+json", JSON)


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        template=f"{V1}/runs",
        name="listRuns",
        tag="runs",
        summary="List runs, newest first.",
        handler=run_routes.list_runs,
        answers={200: a.RunList},
        parameters=(
            Parameter(name="status", description=f"One or more, with commas, of {', '.join(STATUSES)}."),
            Parameter(name="workflow", description="Only this workflow, as name or namespace/name."),
            Parameter(name="key", description="Only runs with this key."),
            Parameter(
                name="since", description="Only runs started within this time (1h30m), or since an RFC 3339 time."
            ),
            _LIMIT,
            _CURSOR,
        ),
    ),
    Route(
        method="POST",
        template=f"{V1}/runs",
        name="startRun",
        tag="runs",
        summary="Start a run. 201 once the run log has it; 200 if it has ended while it was waited for, or its key's open run was joined.",
        handler=run_routes.start_run,
        body=StartRequest,
        consumes=(JSON,),
        answers={200: StartedRun, 201: StartedRun},
        parameters=(
            Parameter(
                name="Idempotency-Key",
                place="header",
                description="With the same workflow and key, the same one starts one run, until runs.client_id_retention after its end.",
            ),
            Parameter(
                name="Prefer",
                place="header",
                description="`wait=10`: answer when the run has ended, or after so many seconds.",
            ),
            Parameter(name="traceparent", place="header", description="W3C trace context: the run is a child of it."),
        ),
    ),
    Route(
        method="GET",
        template=f"{V1}/runs/{{run}}",
        name="getRun",
        tag="runs",
        summary="Show one run: its state, input, result, and what it waits for.",
        handler=run_routes.get_run,
        answers={200: a.RunFacts},
    ),
    Route(
        method="GET",
        template=f"{V1}/runs/{{run}}/history",
        name="getRunHistory",
        tag="runs",
        summary="Every record of a run, oldest first, also those that were skipped.",
        handler=run_routes.get_history,
        answers={200: a.HistoryList},
        parameters=(_LIMIT, _CURSOR),
    ),
    Route(
        method="POST",
        template=f"{V1}/runs/{{run}}/cancel",
        name="cancelRun",
        tag="runs",
        summary="End a run; finished tasks are undone.",
        handler=run_routes.cancel_run,
        body=a.CancelRequest,
        consumes=(JSON,),
        answers={200: a.CommandDone},
    ),
    Route(
        method="POST",
        template=f"{V1}/runs/{{run}}/resume",
        name="resumeRun",
        tag="runs",
        summary="Bring a parked run back.",
        handler=run_routes.resume_run,
        body=a.EmptyRequest,
        consumes=(JSON,),
        answers={200: a.CommandDone},
    ),
    Route(
        method="POST",
        template=f"{V1}/runs/{{run}}/retry",
        name="retryRun",
        tag="runs",
        summary="Begin a new run in place of a failed one, with its finished tasks' results.",
        handler=run_routes.retry_run,
        body=a.RetryRequest,
        consumes=(JSON,),
        answers={201: a.RetryDone},
    ),
    Route(
        method="POST",
        template=f"{V1}/runs/{{run}}/dismiss",
        name="dismissRun",
        tag="runs",
        summary="Say that nobody will retry a failed run.",
        handler=run_routes.dismiss_run,
        body=a.EmptyRequest,
        consumes=(JSON,),
        answers={200: a.CommandDone},
    ),
    Route(
        method="POST",
        template=f"{V1}/events",
        name="publishEvents",
        tag="events",
        summary="Publish CloudEvents: binary, structured or batched; or plain JSON. 202 once the topic has them.",
        handler=overview_routes.publish_events,
        body=Any,
        consumes=_EVENTS,
        answers={202: PublishedEvents},
        parameters=(
            Parameter(name="topic", description="A source topic; else the only one that waits for the event's type."),
            Parameter(name="key", description="The record's key; else the attribute partitionkey."),
        ),
    ),
    Route(
        method="GET",
        template=f"{V1}/workflows",
        name="listWorkflows",
        tag="workflows",
        summary="List the workflows of the app.",
        handler=overview_routes.list_workflows,
        answers={200: a.WorkflowList},
    ),
    Route(
        method="GET",
        template=f"{V1}/workflows/{{namespace}}/{{workflow}}",
        name="getWorkflow",
        tag="workflows",
        summary="Show one workflow.",
        handler=overview_routes.get_workflow,
        answers={200: a.WorkflowDetail},
    ),
    Route(
        method="GET",
        template=f"{V1}/topics",
        name="listTopics",
        tag="service",
        summary="How far behind the routers are, per source partition, and how long the run log is.",
        handler=overview_routes.list_topics,
        answers={200: a.TopicLagList},
    ),
    Route(
        method="GET",
        template=f"{V1}/stats",
        name="getStats",
        tag="service",
        summary="Runs by workflow and status, lag, what limits, partitions that stand still.",
        handler=overview_routes.stats,
        answers={200: a.Stats},
    ),
    Route(
        method="GET",
        template=f"{V1}/about",
        name="getAbout",
        tag="service",
        summary="What answers here.",
        handler=overview_routes.about,
        answers={200: a.About},
    ),
    Route(
        method="GET",
        template=f"{V1}/stream",
        name="stream",
        tag="service",
        summary="Live updates: server-sent events run.queued, run.started, run.parked, run.resumed, run.finished with the run as data; reset: list anew.",
        handler=stream_route.stream,
        answers={200: None},
        media_type="text/event-stream",
        parameters=(Parameter(name="Last-Event-ID", place="header", description="Go on behind this event."),),
    ),
)
