"""`ProcessLines`: lines about the process: its life, its loop and limits, its API, its breakers, and what it depends on. Part of `log_observer.py`."""

from __future__ import annotations

import logging

from headrace.observability import told_process
from headrace.observability.label import BreakerState
from headrace.observability.lines import Lines, rounded_ms
from headrace.observability.log_event import LogEvent
from headrace.observability.logs import Logs


class ProcessLines(Lines):
    """Writes what `told_process.py` tells."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logs)
        self._blocked_ms = 0.0

    def service_started(self, started: told_process.ServiceStarted, /) -> None:
        self._logs.write(
            LogEvent.SERVICE_STARTED,
            app=started.app,
            instance=started.instance,
            version=started.version,
            backend=started.backend,
            workflows=started.workflows,
            handlers=started.handlers,
        )

    def service_stopping(self, stopping: told_process.ServiceStopping, /) -> None:
        self._logs.write(LogEvent.SERVICE_STOPPING, reason=stopping.reason, grace_ms=rounded_ms(stopping.grace_ms))

    def service_stopped(self, stopped: told_process.ServiceStopped, /) -> None:
        self._logs.write(
            LogEvent.SERVICE_STOPPED,
            at=logging.WARNING if stopped.attempts_left else None,
            duration_ms=rounded_ms(stopped.duration_ms),
            attempts_left=stopped.attempts_left or None,
        )

    def loop_blocked(self, blocked: told_process.LoopBlocked, /) -> None:
        self._blocked_ms = blocked.blocked_ms
        self._logs.write(
            LogEvent.LOOP_BLOCKED,
            kind=blocked.handler,
            handler=blocked.handler,
            where=blocked.where,
            stack=" > ".join(blocked.stack),
            blocked_ms=rounded_ms(blocked.blocked_ms),
        )

    def loop_delayed(self, delayed: told_process.LoopDelayed, /) -> None:
        if self._blocked_ms:
            # The turn that ended the block may have come before the watchdog told of it: then this is a later one.
            blocked_ms, self._blocked_ms = max(self._blocked_ms, delayed.delay_ms), 0.0
            self._logs.write(LogEvent.LOOP_RESUMED, kind="", blocked_ms=rounded_ms(blocked_ms))

    def loop_fenced(self, fenced: told_process.LoopFenced, /) -> None:
        self._logs.write(LogEvent.LOOP_FENCED, stalled_ms=rounded_ms(fenced.stalled_ms), partitions=fenced.partitions)

    def resource_measured(self, measured: told_process.ResourceMeasured, /) -> None:
        if measured.changed:
            self._logs.write(
                LogEvent.RESOURCE_SHORT if measured.short else LogEvent.RESOURCE_EASED,
                resource=measured.resource,
                used=measured.used,
                limit=measured.limit,
            )

    def outage_began(self, began: told_process.OutageBegan, /) -> None:
        self._logs.write(
            LogEvent.OUTAGE_BEGAN,
            kind=(began.dependency, began.name),
            dependency=began.dependency,
            name=began.name,
            message=began.message,
            retry_after_ms=rounded_ms(began.retry_after_ms),
        )

    def outage_ended(self, ended: told_process.OutageEnded, /) -> None:
        self._logs.write(
            LogEvent.OUTAGE_ENDED,
            dependency=ended.dependency,
            name=ended.name,
            duration_ms=rounded_ms(ended.duration_ms),
        )

    def breaker_changed(self, changed: told_process.BreakerChanged, /) -> None:
        self._logs.write(
            LogEvent.BREAKER_CHANGED,
            at=logging.WARNING if changed.after is BreakerState.OPEN else None,
            kind=(changed.breaker, changed.after),
            breaker=changed.breaker,
            before=changed.before,
            after=changed.after,
            reason=changed.reason,
        )

    def http_failed(self, failed: told_process.HttpFailed, /) -> None:
        self._logs.write(
            LogEvent.HTTP_FAILED,
            at=logging.ERROR if failed.code == "HR9001" else None,
            kind=(failed.route, failed.code),
            method=failed.method,
            route=failed.route,
            status=failed.status,
            code=failed.code,
            message=failed.message,
        )
