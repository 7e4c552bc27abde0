"""The link between a supervisor and one worker process: two pipes, named in the worker's environment.

Down: the lifeline. It carries nothing but hints that the group has changed; its end means that the supervisor is gone, and a worker never outlives it.
Up: one line for each thing that the supervisor wants to know, as JSON: where the metrics are.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import asyncio

VARIABLE = "HEADRACE_WORKER"
_EXTRA_S = 5.0  # beyond the grace of a stop that nobody asked for in time
_GONE = 1  # exit code of a worker that cannot stop without its supervisor


class WorkerStarted(msgspec.Struct, frozen=True):
    """A worker has checked its settings, definitions and topics, and listens. `metrics` is the address without a path."""

    metrics: str
    instance: str


class Supervised(msgspec.Struct, frozen=True, kw_only=True):
    """What the service of a worker has of its supervisor. `group_changed` is set by it at each hint, and cleared by who has looked."""

    index: int
    group_changed: asyncio.Event
    discovery: Path  # the document with the metrics of all workers


class WorkerLink(msgspec.Struct, frozen=True):
    """The worker's side."""

    index: int
    lifeline: int  # file descriptors
    reports: int
    discovery: Path  # the document with the metrics of all workers

    def __str__(self) -> str:
        """As the environment carries it."""
        return f"{self.index}:{self.lifeline}:{self.reports}:{self.discovery}"

    def report(self, started: WorkerStarted) -> None:
        """Tell the supervisor. A supervisor that is gone hears nothing."""
        try:
            os.write(self.reports, msgspec.json.encode(started) + b"\n")
        except OSError:
            pass

    def watch(self, changed: Callable[[], None], grace_s: float) -> None:
        """Call `changed` (in a thread) at each hint. When the supervisor is gone, stop this process in good order, or after the grace at once."""
        threading.Thread(target=self._watch, args=(changed, grace_s), name="headrace-lifeline", daemon=True).start()

    def _watch(self, changed: Callable[[], None], grace_s: float) -> None:
        while os.read(self.lifeline, 64):
            changed()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s + _EXTRA_S)
        os._exit(_GONE)


def link() -> WorkerLink | None:
    """This process's link; None if it is no worker."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return None
    index, lifeline, reports, discovery = text.split(":", 3)
    for descriptor in (int(lifeline), int(reports)):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - not for processes that handlers start
    return WorkerLink(int(index), int(lifeline), int(reports), Path(discovery))
