"""What a forecast has to know of an app and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.observability.forecast_sample import Facts
from headrace.service.admission import OUTSTANDING

if TYPE_CHECKING:
    from headrace.service.definitions.app import App
    from headrace.service.settings import Settings


def facts_of(settings: Settings, app: App) -> Facts:
    """Limits of this process, and what its workflows and handlers share."""
    return Facts(
        slots=settings.worker.max_active_runs,
        outcomes_max=OUTSTANDING,
        batch_bytes=settings.log.group_commit_bytes,
        threads=settings.worker.thread_pool,
        threaded=frozenset(handler.name for handler in app.handlers if not handler.is_async),
        pool_of={handler.name: handler.pool.name for handler in app.handlers if handler.pool is not None},
        breaker_of={handler.name: handler.breaker.name for handler in app.handlers if handler.breaker is not None},
        limit_of={handler.name: each.name for handler in app.handlers if (each := handler.rate_limit) is not None},
        limits={
            each.name: each.limit * 1000 / each.per_ms
            for handler in app.handlers
            if (each := handler.rate_limit) is not None
        },
        topics_of={
            workflow.name: tuple(sorted({trigger.topic for trigger in workflow.triggers}))
            for workflow in app.newest()
            if workflow.triggers
        },
        delay_limit_s=settings.telemetry.delay_limit_ms / 1000,
    )
