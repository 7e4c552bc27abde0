"""How a command wants an app served: said by `serve.py`, carried out by `service_process.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import msgspec

if TYPE_CHECKING:
    from headrace.service.worker_link import WorkerLink


class Feed(msgspec.Struct, frozen=True):
    """Publish what the app's feed yields. `limit`: stop after that many events and their runs; None: go on until a signal."""

    seed: int
    limit: int | None


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """`lines` gets a line for each finished run; `report` asks for a table at the end; `worker` is set under a supervisor."""

    create_topics: bool
    feed: Feed | None = None
    report: bool = False
    lines: TextIO | None = None
    worker: WorkerLink | None = None
