"""`Turn`: what the interpreter hands out. Carried out by `service/awake_runs.py`."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.service.engine.step import Leaf
from headrace.topics.outcome import RunEnded, RunParked


class Turn(msgspec.Struct, gc=False):
    """What a run asks for after some records: steps that begin, steps to cancel, its end (said once), or that it must be parked."""

    issued: list[Leaf[Any]] = []
    cancelled: list[str] = []
    ended: RunEnded | None = None
    parked: RunParked | None = None
