"""I10 and I11: what a live owner has in memory is what the log says.

Beside each owner goes a state that is folded from the very first record, from bytes, by nobody but this file. After a step both must be equal, and the fold
must have skipped exactly what the judge's own accept rule skips.
"""

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.state import PartitionState
from headrace.service.owner import Owner
from headrace.topics.log import TopicPartition
from headrace.topics.outcome import TimerFired
from headrace.topics.run_record import OutcomeRecord, decode
from tests.simulation.broker import Broker
from tests.simulation.judge import Judge


class Refold:
    """`check` an owner whenever it has folded something."""

    def __init__(self, broker: Broker, judge: Judge, violated: Callable[[str], None]) -> None:
        self._broker = broker
        self._judge = judge
        self._violated = violated
        self._beside: WeakKeyDictionary[Owner, PartitionState] = WeakKeyDictionary()
        self._misled: WeakSet[Owner] = WeakSet()  # they have read what is lost since, and know nothing of it yet
        self.compared = 0

    def check(self, name: str, owner: Owner, truncated: set[int]) -> None:
        """Compare the owner's state with one folded from the log up to the same record. `truncated`: partitions of which its process has raised the alarm."""
        live = owner.state
        if not self._judge.sees(owner.at.partition, owner._tenure.token, owner._nonce):
            return
        if owner in self._misled:
            self._misled.discard(owner)
            if owner.at.partition not in truncated:
                self._violated(f"P1 {name} goes on with {owner.at}, which has lost what it had read, and says nothing")
        beside = self._beside.get(owner)
        if beside is None:
            beside = self._beside[owner] = fresh(live)
        if beside.next_offset == live.next_offset:
            return
        self.forward(beside, live.next_offset)
        live_next, beside.next_offset = live.next_offset, live.next_offset  # gaps in offsets
        self.compared += 1
        if live != beside:
            self._violated(f"I10 {name} {owner.at} at {live_next}: {difference(live, beside)}")

    def lost(self, at: TopicPartition, owners: Iterable[Owner]) -> None:
        """The log has lost its tail. Whoever has read it will hear of that; until it has announced itself anew, what it knows is not compared."""
        end = self._broker.partitions[at].end
        self._misled.update(owner for owner in owners if owner.state.next_offset > end)
        for owner in [owner for owner in self._beside if owner.at == at]:
            del self._beside[owner]

    def forward(self, state: PartitionState, to: int) -> None:
        """Fold on to an offset."""
        at = next(at for at in self._broker.partitions if at.topic == state.topic and at.partition == state.partition)
        begin = state.next_offset
        for record in self._broker.partitions[at].all():
            if begin <= record.offset < to:
                value = record.value or b""
                entry = decode(value)
                folded = fold(state, record.offset, record.timestamp_ms, len(value), entry)
                counted = folded.skip is None and not folded.without_effect  # a decision may have come first
                if counted and isinstance(entry, OutcomeRecord) and isinstance(entry.body, TimerFired):
                    self._timer(state, entry.body, record.timestamp_ms)
                gate = state.gate
                ruled = self._judge.gate(at.partition, record.offset)
                if ruled is not None and ruled[:2] != (gate.last, gate.token):
                    self._violated(f"I11 {at}/{record.offset}: the gate is {gate}, by the rule {ruled}")
                counts = self._judge.counts(at.partition, record.offset)
                if counts is not None and counts != (folded.skip is None):
                    self._violated(
                        f"I11 {at}/{record.offset}: the fold says {folded.skip}, the rule counts it: {counts}"
                    )

    def _timer(self, state: PartitionState, fired: TimerFired, at_ms: int) -> None:
        """I7: what came early does not count."""
        run = state.runs.get(fired.run)
        if run is not None and at_ms < fired.due_at_ms and fired.step in run.settled:
            self._violated(f"I7 {fired.run}{fired.step} fired {fired.due_at_ms - at_ms} ms early, and it counts")


def fresh(like: PartitionState) -> PartitionState:
    """A state before its first record."""
    return new_state(
        topic=like.topic,
        partition=like.partition,
        partitions=like.partitions,
        client_retention_ms=like.client_retention_ms,
    )


def difference(live: PartitionState, beside: PartitionState) -> str:
    """The first field that differs."""
    for field in live.__struct_fields__:
        mine, theirs = getattr(live, field), getattr(beside, field)
        if mine != theirs:
            return f"{field}: live {_short(mine)}, from the log {_short(theirs)}"
    return "equal fields, unequal states"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 2_000 else f"{text[:2_000]}..."
