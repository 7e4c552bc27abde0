"""Headrace: durable workflows on Kafka. The public face: what an app imports, and nothing else.

Names are loaded when they are first used (PEP 562), so that `import headrace` costs nothing and brings no library along. Nothing inside imports from here.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.handlers.attempt import Attempt, current_attempt
    from headrace.handlers.breaker import Breaker
    from headrace.handlers.definition import Handler, HandlerDecorator, handler
    from headrace.handlers.duration import Duration
    from headrace.handlers.http_request import HttpRequest, HttpResponse, http_handler, http_request
    from headrace.handlers.pool import Pool
    from headrace.handlers.rate_limit import RateLimit
    from headrace.handlers.retry import Retry
    from headrace.service.definitions.schedule import Schedule, Tick
    from headrace.service.definitions.trigger import EventTrigger
    from headrace.service.definitions.workflow import Workflow, workflow
    from headrace.service.engine.approval import Approval
    from headrace.service.engine.run import Run
    from headrace.service.engine.step import Step
    from headrace.topics.errors import (
        Cancelled,
        Cause,
        ChildFailed,
        DefinitionError,
        HeadraceError,
        NonRetryable,
        NotDeterministic,
        Retryable,
        TaskFailed,
    )
    from headrace.topics.event import Event

__all__ = [
    "Approval",
    "Attempt",
    "Breaker",
    "Cancelled",
    "Cause",
    "ChildFailed",
    "DefinitionError",
    "Duration",
    "Event",
    "EventTrigger",
    "Handler",
    "HandlerDecorator",
    "HeadraceError",
    "HttpRequest",
    "HttpResponse",
    "NonRetryable",
    "NotDeterministic",
    "Pool",
    "RateLimit",
    "Retry",
    "Retryable",
    "Run",
    "Schedule",
    "Step",
    "TaskFailed",
    "Tick",
    "Workflow",
    "current_attempt",
    "handler",
    "http_handler",
    "http_request",
    "workflow",
]

_HOMES = {
    "headrace.handlers.attempt": ("Attempt", "current_attempt"),
    "headrace.handlers.breaker": ("Breaker",),
    "headrace.handlers.definition": ("Handler", "HandlerDecorator", "handler"),
    "headrace.handlers.duration": ("Duration",),
    "headrace.handlers.http_request": ("HttpRequest", "HttpResponse", "http_handler", "http_request"),
    "headrace.handlers.pool": ("Pool",),
    "headrace.handlers.rate_limit": ("RateLimit",),
    "headrace.handlers.retry": ("Retry",),
    "headrace.service.definitions.schedule": ("Schedule", "Tick"),
    "headrace.service.definitions.trigger": ("EventTrigger",),
    "headrace.service.definitions.workflow": ("Workflow", "workflow"),
    "headrace.service.engine.approval": ("Approval",),
    "headrace.service.engine.run": ("Run",),
    "headrace.service.engine.step": ("Step",),
    "headrace.topics.errors": (
        "Cancelled",
        "Cause",
        "ChildFailed",
        "DefinitionError",
        "HeadraceError",
        "NonRetryable",
        "NotDeterministic",
        "Retryable",
        "TaskFailed",
    ),
    "headrace.topics.event": ("Event",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
