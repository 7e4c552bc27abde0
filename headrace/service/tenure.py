"""A tenure: what an owner has proposed under its token, from announce to release, and what of it has not been read back yet.

Nothing proposed has an effect before it is read back. What is lost with a token (a failed append) is proposed again under the next one. Called by `owner.py`,
`awake_runs.py` and the outbox.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.observability import told_log
from headrace.service.fault_point import FaultPoint, maybe
from headrace.topics.log import NewRecord
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptsGiven,
    AttemptSucceeded,
    OutboxProgress,
    Outcome,
    OutputRefused,
    Sent,
)
from headrace.topics.run_record import OutcomeRecord, Release, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.engine.state import PartitionState
    from headrace.service.shared import Shared
    from headrace.service.writer import Writer
    from headrace.topics.errors import HeadraceError
    from headrace.topics.outcome import RunningAttempt

CLOSED = -1
_LISTED_MAX = 2_000  # attempts or outbox entries in one record: more would not fit where references are long
_PROGRESS_S = 0.01  # nobody waits for it; a crash within repeats what left, with the same ids. An append of its own would cost as much as a task


class Tenure:
    """One per partition, used again for each token. `broke` is called when an append failed: the token is worth nothing any more."""

    def __init__(self, shared: Shared, writer: Writer, state: PartitionState, broke: Callable[[], None]) -> None:
        self.token = CLOSED
        self._shared = shared
        self._writer = writer
        self._state = state
        self._broke = broke
        self._seq = 0
        self._proposed: deque[tuple[bytes, OutcomeRecord]] = deque()  # not read back, oldest first
        self._results: dict[tuple[str, str, int], AttemptSucceeded | AttemptFailed] = {}  # not read back
        self._sent: dict[str, Sent] = {}  # outbox entries that left and whose progress is not read back
        self._progress: list[Sent] = []  # of these, not proposed yet
        self._progress_due = False
        self._sending = True
        self._sample: tuple[int, float] | None = None  # one proposal whose way to the log and back is being measured

    @property
    def open(self) -> bool:
        """Whether proposals have a point."""
        return self.token != CLOSED

    def begin(self, token: int) -> None:
        """The announce at this offset was accepted. What the last token left unconfirmed is proposed again, if it still matters."""
        self._forget_outstanding()
        self.token, self._seq, self._sample, self._sending = token, 0, None, True
        results, self._results = self._results, {}
        for (run_id, step, _), outcome in results.items():
            run = self._state.runs.get(run_id)
            if run is not None and step not in run.settled:
                self.propose_result(outcome)
        self._progress = [sent for entry, sent in self._sent.items() if entry in self._state.outbox]
        self._sent = {sent.entry: sent for sent in self._progress}
        self._flush_progress()

    def end(self) -> None:
        """The token is lost or given away."""
        self.token = CLOSED
        self._forget_outstanding()

    def _forget_outstanding(self) -> None:
        self._shared.admission.outstanding -= len(self._proposed)
        self._proposed.clear()

    @property
    def oldest(self) -> int | None:
        """The seq of the first proposal that is not read back."""
        return self._proposed[0][1].seq if self._proposed else None

    # --- proposing -------------------------------------------------------------------------------------------------

    def propose(self, outcome: Outcome) -> None:
        """Append an outcome under the token; without one, it is of no use and dropped."""
        if self.token == CLOSED:
            return
        if self._progress:
            self._flush_progress()  # costs nothing beside another record
        record = OutcomeRecord(token=self.token, seq=self._seq, body=outcome)
        if self._sample is None:
            self._sample = (self._seq, perf_counter())
        self._seq += 1
        self._shared.admission.outstanding += 1
        value = encode(record)
        self._proposed.append((value, record))
        self._writer.put(NewRecord(value=value), self._written)

    def propose_result(self, outcome: AttemptSucceeded | AttemptFailed) -> None:
        """The same for the result of an attempt, which is a fact: it is kept until it is read back."""
        self._results[outcome.run, outcome.step, outcome.number] = outcome
        self.propose(outcome)
        maybe(FaultPoint.RESULT_QUEUED)

    def has_result(self, run: str, step: str, number: int) -> bool:
        """Whether this attempt has ended and its result is on its way."""
        return (run, step, number) in self._results

    def release(self, attempts: tuple[RunningAttempt, ...], grace_ms: int) -> None:
        """Close the token in the log, after everything proposed so far. What the release cannot list is listed before it."""
        self._flush_progress()
        for first in range(_LISTED_MAX, len(attempts), _LISTED_MAX):
            self.propose(AttemptsGiven(attempts=attempts[first : first + _LISTED_MAX], grace_ms=grace_ms))
        record = Release(token=self.token, seq=self._seq, attempts=attempts[:_LISTED_MAX], grace_ms=grace_ms)
        self._writer.put(NewRecord(value=encode(record)))
        self.end()

    def _written(self, _offset: int, error: HeadraceError | None) -> None:
        if error is not None and self.token != CLOSED:
            self._broke()

    def proposed(self, value: bytes) -> OutcomeRecord | None:
        """The record behind a value that was read, if it is the next one that comes back: the same bytes need no decoding."""
        proposed = self._proposed
        return proposed[0][1] if proposed and proposed[0][0] == value else None

    def confirm(self, seq: int, body: Outcome) -> None:
        """An outcome under the present token was read back and accepted."""
        if self._proposed:  # or somebody else wrote it, with our token
            self._proposed.popleft()
            self._shared.admission.outstanding -= 1
        if self._sample is not None and seq == self._sample[0]:
            duration_ms = (perf_counter() - self._sample[1]) * 1000
            self._sample = None
            self._shared.observer.read_back(
                told_log.ReadBack(partition=self._state.partition, records=1, duration_ms=duration_ms)
            )
        if isinstance(body, AttemptSucceeded | AttemptFailed):
            self._results.pop((body.run, body.step, body.number), None)
        elif isinstance(body, OutboxProgress):
            for sent in body.sent:
                self._sent.pop(sent.entry, None)

    # --- outbox ----------------------------------------------------------------------------------------------------

    def sent(self, entry: Sent) -> None:
        """An outbox entry was acknowledged where it went. Told to the log soon, in one record for all that left by then."""
        self._sent[entry.entry] = entry
        self._progress.append(entry)
        if not self._progress_due:
            self._progress_due = True
            asyncio.get_running_loop().call_later(_PROGRESS_S, self._flush_progress)

    def _flush_progress(self) -> None:
        self._progress_due = False
        progress, self._progress = self._progress, []
        if progress:
            maybe(FaultPoint.PROGRESS_QUEUED)
            for first in range(0, len(progress), _LISTED_MAX):
                self.propose(OutboxProgress(sent=tuple(progress[first : first + _LISTED_MAX])))

    def has_sent(self, entry: str) -> bool:
        """Whether this entry has left, though the log does not say so yet."""
        return entry in self._sent

    def wants(self, entry: str) -> bool:
        """Whether this entry is still to be sent by us."""
        return self.token != CLOSED and self._sending and entry in self._state.outbox and entry not in self._sent

    def stop_sending(self) -> None:
        """From now on no entry is wanted, under this token."""
        self._sending = False

    def refused(self, entry: str, code: str, message: str) -> None:
        """A topic will never take this entry."""
        self.propose(OutputRefused(entry=entry, code=code, message=message))
