"""The friendly face of `headrace dev`.

One short line per finished run, for people at a terminal. Not a log; nothing parses it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, TextIO

from headrace.observability.log_text import one_line
from headrace.observability.silent import Silent
from headrace.observability.told_run import RunFinished
from headrace.topics.outcome import RunStatus

_COLOURS: Final = {
    RunStatus.SUCCEEDED: "32",
    RunStatus.COMPENSATED: "33",
    RunStatus.CANCELLED: "33",
    RunStatus.FAILED: "31",
    RunStatus.TIMED_OUT: "31",
}


class ConsoleObserver(Silent):
    """`12:30:05 fulfil order-1017 succeeded 84 ms, 2 retries`, to `stream`.

    Coloured on a terminal unless NO_COLOR is set.
    """

    def __init__(self, stream: TextIO, mask: Callable[[str], str] = str) -> None:
        self._stream = stream
        self._mask = mask
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR")

    def run_finished(self, finished: RunFinished, /) -> None:
        print(self._mask(line(finished, coloured=self._coloured)), file=self._stream, flush=True)


def line(finished: RunFinished, *, coloured: bool = False) -> str:
    """The line, in local time of the run's end."""
    ended = time.localtime((finished.started_at_ms + finished.duration_ms) / 1000)
    status = f"{finished.status:<11}"
    if coloured:
        status = f"\x1b[{_COLOURS[finished.status]}m{status}\x1b[0m"
    parts = [
        time.strftime("%H:%M:%S", ended),
        f"{one_line(finished.workflow, 24):<16}",
        f"{one_line(finished.key or finished.run, 32):<14}",
        status,
        f"{duration(finished.duration_ms):>8}",
    ]
    if finished.retries:
        parts.append(f"{finished.retries} {'retry' if finished.retries == 1 else 'retries'}")
    if finished.error or finished.message:
        why = f"{finished.failed_step} {finished.error}: {finished.message}".strip()
        parts.append(one_line(why, 120))
    return "  ".join(parts).rstrip()


def duration(duration_ms: float) -> str:
    """Three digits are enough for people: 0.8 ms, 84 ms, 2.31 s, 3 min 5 s."""
    if duration_ms < 10:
        return f"{duration_ms:.1f} ms"
    if duration_ms < 1000:
        return f"{duration_ms:.0f} ms"
    if duration_ms < 60_000:
        return f"{duration_ms / 1000:.2f} s"
    minutes, seconds = divmod(round(duration_ms / 1000), 60)
    return f"{minutes} min {seconds} s"
