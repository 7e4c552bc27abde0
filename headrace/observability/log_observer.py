"""The log observer: hooks in, lines out. Which hook makes which line, at which level, and which lines are limited.

One file for each file of what is told: `lines_event.py`, `lines_run.py`, `lines_log.py`, `lines_process.py`. At the
level INFO, what happens for every run costs one comparison there.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.observability.lines_event import EventLines
from headrace.observability.lines_log import LogLines
from headrace.observability.lines_process import ProcessLines
from headrace.observability.lines_run import RunLines
from headrace.observability.log_event import LogEvent
from headrace.observability.logs import Logs


class LogObserver(EventLines, RunLines, LogLines, ProcessLines):
    """Writes lines to `logs`."""


def report_to(logs: Logs) -> Callable[[str, str, Exception], None]:
    """For `FanOut`: says which observer raised where, once."""

    def report(observer: str, hook: str, error: Exception) -> None:
        logs.write(LogEvent.OBSERVER_FAILED, observer=observer, hook=hook, raised=error)

    return report


def exceeded_to(logs: Logs) -> Callable[[str], None]:
    """For `PrometheusObserver`: says that the series budget is used up, once."""

    def exceeded(family: str) -> None:
        logs.write(LogEvent.SERIES_FOLDED, family=family)

    return exceeded
