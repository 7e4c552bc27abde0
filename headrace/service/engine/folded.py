"""What the fold answers: what the shell is to do, or why a record changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.gate import Skip
from headrace.service.engine.instruction import Instruction, Send

if TYPE_CHECKING:
    from headrace.service.engine.state import OutboxEntry, PartitionState


class Folded(msgspec.Struct, gc=False):
    """`skip`: the gate's or the dedupe's reason why the record does not count. `without_effect`: it counts and changes no run (late, unknown run)."""

    instructions: list[Instruction]
    skip: Skip | None = None
    without_effect: bool = False


DONE = Folded(instructions=[])
NO_EFFECT = Folded(instructions=[], without_effect=True)
SKIPPED = {reason: Folded(instructions=[], skip=reason) for reason in Skip}


def to_outbox(state: PartitionState, entry: OutboxEntry) -> Folded:
    """It is sent, and stays in the state until the log says that it has arrived."""
    state.outbox[entry.id] = entry
    return Folded(instructions=[Send(entry)])
