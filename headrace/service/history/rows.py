"""Rows: what a stretch of one partition's records comes to in the tables, and `Collector`, which makes them while the stretch is folded.

No SQL and no waiting: dicts by column names. Called by `feeder.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headrace.service.engine.instruction import Close
from headrace.service.engine.retry import RETRIABLE
from headrace.service.history.tables import runs
from headrace.service.run_view.history_entry import copied_to, entry_of, known_of, runs_of
from headrace.service.run_view.run_detail import RunDetail, detail_of
from headrace.service.run_view.summary import RunSummary, Tallies, Tally, summary_of
from headrace.topics.command import Dismiss, Retry
from headrace.topics.outcome import CheckpointChunk
from headrace.topics.run_record import CommandRecord, OutcomeRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.service.engine.run_state import RunState
    from headrace.service.engine.state import PartitionState
    from headrace.service.run_view.history_entry import HistoryEntry
    from headrace.service.run_view.scan import Seen
    from headrace.topics.outcome import RunEnded

Row = dict[str, Any]

INDEXED_CHARS = 300
"""Of names in an index: what is longer is cut. Names in definitions are far shorter."""
LEFT_OUT = "left_out_bytes"
"""The only key of what stands for a payload over `history.payload`."""
UNKNOWN = "unknown"
"""The status of a run whose end lies in a gap."""
OPEN = ("running", "queued", "parked")
"""The statuses of a run that is open."""
_ROW_BYTES = 700  # what a row costs in memory besides its longest values
_INDEXED = ("namespace", "workflow", "version", "status")

_OWN = frozenset({"id", "started_at", "ended_at", "summary", "input", "result", "waiting"})  # columns, in another form


def _split(kind: type[msgspec.Struct]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of a struct's fields: those with a column of their name, and those that are in `more`."""
    names = [name for name in kind.__struct_fields__ if name not in _OWN]
    return tuple(name for name in names if name in runs.c), tuple(name for name in names if name not in runs.c)


OF_SUMMARY, MORE_OF_SUMMARY = _split(RunSummary)
OF_DETAIL, MORE_OF_DETAIL = _split(RunDetail)

_encode = msgspec.json.Encoder().encode


class Checkpoint(msgspec.Struct, frozen=True):
    """A complete one that was read: where a reader may begin."""

    as_of: int = -1
    first: int = -1  # offset of its first chunk


class Gap(msgspec.Struct, frozen=True):
    """Records that were not read (`trimmed`), or that are in the log no more although they were (`truncated`)."""

    first: int
    behind: int
    kind: str
    at_ms: int


class Rows(msgspec.Struct, kw_only=True):
    """To be written in one transaction, if the database stands at `before`. It stands at `after` then."""

    partition: int
    before: int
    after: int
    log: str = ""
    checkpoint: Checkpoint = Checkpoint()
    at_ms: int = 0
    begun: list[Row] = []  # runs, whole: made, or written anew
    changed: list[Row] = []  # runs that are there: all but what never changes; `attempts` and `retries` are added
    records: list[Row] = []
    strays: list[Row] = []  # records of runs that may not be there: then they are left out
    flags: list[Row] = []  # id, retriable, retry
    forget_from: int | None = None  # records and runs from this offset on never were
    lost: list[Row] = []  # id, ended_at_ms, message of runs whose end is not known
    unflag: bool = False  # no run is retriable, but for `flags`
    gap: Gap | None = None
    size_bytes: int = 0

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.begun) + len(self.changed) + len(self.records) + len(self.strays) + len(self.flags)


class Collector:
    """One partition: hand it everything that is seen there, in order; `take` gives what has come together since the last time."""

    def __init__(self, partition: int, payload_bytes: int) -> None:
        self.partition = partition
        self.size_bytes = 0
        """Of what has come together."""
        self.records_count = 0
        self.next_offset = 0
        self.checkpoint = Checkpoint()
        self.first_ms: int | None = None  # append time of the first record since the last `take`
        self._payload_bytes = payload_bytes
        self._tallies = Tallies()
        self._from = 0  # the offset at which this stretch began
        self._begun: dict[str, Row] = {}
        self._changed: dict[str, Row] = {}
        self._touched: dict[str, None] = {}
        self._records: list[Row] = []
        self._strays: list[Row] = []
        self._failed: dict[str, str] = {}  # runs that can be retried, as the database has them, with their newest retry
        self._look_at_failed = False
        self._assembling: tuple[int, int, int, int] | None = None  # token, as_of, next index, first offset
        self._at_ms = 0

    def begin(self, state: PartitionState, checkpoint: Checkpoint) -> None:
        """What comes next is the record at `state.next_offset`; the database has all before it."""
        self._from = self.next_offset = state.next_offset
        self.checkpoint = checkpoint
        self._failed = {run: failed.retry for run, failed in state.failed.items()}
        self._at_ms = state.clock_ms

    def see(self, seen: Seen) -> None:
        """The next record."""
        self.next_offset = seen.offset + 1
        self.records_count += 1
        self._at_ms = seen.timestamp_ms
        if self.first_ms is None:
            self.first_ms = seen.timestamp_ms
        self.watch(seen)
        record = seen.record
        if isinstance(record, CommandRecord):
            self._look_at_failed = self._look_at_failed or isinstance(record.body, Retry | Dismiss)
        elif not isinstance(record, OutcomeRecord):
            return
        self._tallies.see(seen)
        closed = {one.run.id for one in seen.folded.instructions if isinstance(one, Close)}
        for run in runs_of(seen):
            is_open = run in seen.state.runs
            self._enter(seen, run, known=is_open or run in closed or run in self._begun or run in self._changed)
            if is_open:
                self._touched[run] = None
        if closed:
            for instruction in seen.folded.instructions:
                if isinstance(instruction, Close):
                    self._close(seen.state, instruction)

    def watch(self, seen: Seen) -> None:
        """A record that the database has already: only checkpoints matter."""
        record = seen.record
        if not isinstance(record, OutcomeRecord) or not isinstance(record.body, CheckpointChunk):
            return
        chunk = record.body
        if seen.folded.skip is not None:
            return
        if chunk.index == 0:
            self._assembling = (record.token, chunk.as_of, 1, seen.offset)
        elif self._assembling is None or self._assembling[:3] != (record.token, chunk.as_of, chunk.index):
            self._assembling = None
            return
        else:
            self._assembling = (record.token, chunk.as_of, chunk.index + 1, self._assembling[3])
        if chunk.last:
            self.checkpoint = Checkpoint(chunk.as_of, self._assembling[3])
            self._assembling = None

    def touched(self, state: PartitionState) -> Iterator[None]:
        """Describe the open runs that something has happened to; a turn for each, so that others have theirs. Before `take`."""
        while self._touched:
            run = state.runs.get(next(iter(self._touched)))
            del self._touched[next(iter(self._touched))]
            if run is not None:
                self._put(state, run, self._tallies.take(run.id), None, None)
            yield

    def take(self, state: PartitionState, before: int) -> Rows:
        """What has come together, all of it described. The next stretch begins."""
        rows = Rows(
            partition=self.partition,
            before=before,
            after=self.next_offset,
            log=state.gate.first,
            checkpoint=self.checkpoint,
            at_ms=self._at_ms,
            begun=list(self._begun.values()),
            changed=list(self._changed.values()),
            records=self._records,
            strays=self._strays,
            flags=self._flags(state) if self._look_at_failed else [],
            size_bytes=self.size_bytes,
        )
        self._begun, self._changed, self._records, self._strays = {}, {}, [], []
        self.size_bytes = self.records_count = 0
        self._from, self.first_ms, self._look_at_failed = self.next_offset, None, False
        return rows

    # --- a gap -------------------------------------------------------------------------------------------------------

    def anew(self, state: PartitionState, checkpoint: Checkpoint) -> Iterator[None]:
        """All open runs as a checkpoint has them: what was read before counts no more. A turn for each; then `take`."""
        self.begin(state, checkpoint)
        self._tallies = Tallies()
        self._tallies.begin(state)
        for name in list(state.runs):
            run = state.runs[name]
            self._put(state, run, self._tallies.take(name), None, None, whole=True)
            for n, entry in enumerate(known_of(run, state)):
                self._record(name, entry, n if entry.offset == run.offset else 0, state.clock_ms, stray=False)
            yield

    def flags(self) -> list[Row]:
        """Every run that can be retried."""
        return [{"b_id": run, "retriable": True, "retry": retry} for run, retry in self._failed.items()]

    # --- rows --------------------------------------------------------------------------------------------------------

    def _enter(self, seen: Seen, run: str, *, known: bool) -> None:
        entry = entry_of(seen, run)
        if entry is None:
            return
        self._record(run, entry, 0, seen.timestamp_ms, stray=not known)
        for n, copy in enumerate(copied_to(seen, run), 1):
            self._record(run, copy, n, seen.timestamp_ms, stray=not known)

    def _record(self, run: str, entry: HistoryEntry, n: int, at_ms: int, *, stray: bool) -> None:
        if len(bytes(entry.record)) > self._payload_bytes:
            entry = msgspec.structs.replace(entry, record=msgspec.Raw(left_out(len(bytes(entry.record)))))
        text = _text(_encode(entry))
        self.size_bytes += _ROW_BYTES + len(text)
        row = {"run": run, "log_offset": entry.offset, "n": n, "at_ms": at_ms, "kind": entry.kind, "entry": text}
        (self._strays if stray else self._records).append(row)

    def _close(self, state: PartitionState, close: Close) -> None:
        run, ended = close.run, close.ended
        self._touched.pop(run.id, None)
        self._put(state, run, self._tallies.take(run.id), ended, close.at_ms)
        if ended.status in RETRIABLE or run.retried is not None:
            self._look_at_failed = True

    def _put(
        self,
        state: PartitionState,
        run: RunState,
        tally: Tally,
        ended: RunEnded | None,
        ended_at_ms: int | None,
        *,
        whole: bool = False,
    ) -> None:
        """The run's row. `attempts` and `retries` are those of this stretch: for a run that began in it, all there are."""
        summary = summary_of(run, tally, ended, ended_at_ms)
        row = _row(run, detail_of(run, summary, ended, state.approvals if ended is None else {}), ended_at_ms)
        for name in ("input", "result"):
            payload = row[name]
            if payload is not None and len(payload) > self._payload_bytes:
                row[name] = _text(left_out(len(payload)))
        self.size_bytes += _ROW_BYTES + len(row["input"]) + len(row["result"] or "")
        before = self._begun.get(run.id)
        if before is None and not whole and run.offset < self._from:
            before = self._changed.get(run.id)
            row["b_id"] = row.pop("id")
            del row["input"]  # and the rest of what never changes is not set
            self._changed[run.id] = row
        else:
            self._begun[run.id] = row
        if before is not None:
            row["attempts"] += before["attempts"]
            row["retries"] += before["retries"]

    def _flags(self, state: PartitionState) -> list[Row]:
        """What has changed of which runs can be retried."""
        now = {run: failed.retry for run, failed in state.failed.items()}
        gone = [{"b_id": run, "retriable": False, "retry": ""} for run in self._failed if run not in now]
        new = [
            {"b_id": run, "retriable": True, "retry": retry}
            for run, retry in now.items()
            if self._failed.get(run) != retry
        ]
        self._failed = now
        return gone + new


def left_out(size_bytes: int) -> bytes:
    """What stands for a payload that is too large."""
    return _encode({LEFT_OUT: size_bytes})


def _row(run: RunState, detail: RunDetail, ended_at_ms: int | None) -> Row:
    summary = detail.summary
    row: Row = {name: getattr(summary, name) for name in OF_SUMMARY}
    row |= {name: getattr(detail, name) for name in OF_DETAIL}
    for name, value in row.items():
        if isinstance(value, str) and "\0" in value:
            row[name] = _storable(value)
    for name in _INDEXED:
        row[name] = row[name][:INDEXED_CHARS]
    row["id"] = run.id
    row["partition"] = int(run.id.partition(".")[0])
    row["start_offset"] = run.offset
    row["started_at_ms"] = run.started_at_ms
    row["ended_at_ms"] = ended_at_ms
    row["waiting"] = _text(_encode(detail.waiting))
    row["input"] = _text(bytes(detail.input))
    row["result"] = None if detail.result is None else _text(bytes(detail.result))
    more = {
        "summary": {name: getattr(summary, name) for name in MORE_OF_SUMMARY},
        "detail": {name: getattr(detail, name) for name in MORE_OF_DETAIL},
    }
    row["more"] = _text(_encode(more))
    return row


def _text(json: bytes) -> str:
    """Payloads are not looked into anywhere else: what is not UTF-8 in them shows here."""
    return _storable(json.decode(errors="replace"))


def _storable(text: str) -> str:
    """PostgreSQL has no place for NUL."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}") if "\0" in text else text
