"""`RunHistory`: all records of one run, and what they come to. For `run history` and `run get`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.engine.instruction import Close
from headrace.service.run_view.history_entry import HistoryEntry, copied_to, entry_of, known_of
from headrace.service.run_view.run_detail import RunDetail, detail_of
from headrace.service.run_view.summary import Tallies, summary_of

if TYPE_CHECKING:
    from headrace.service.engine.state import PartitionState
    from headrace.service.run_view.scan import Seen


class RunHistory:
    """Watches one partition for one run: hand it everything seen there, in order."""

    def __init__(self, run: str, *, keep_entries: bool = True) -> None:
        self.run = run
        self.entries: list[HistoryEntry] = []
        self.detail: RunDetail | None = None
        """Set once the run has ended; see `current`."""
        self.trimmed_before = 0
        """First offset that was read, if the partition's log was trimmed."""
        self._keep = keep_entries
        self._tallies = Tallies()

    def begin(self, state: PartitionState) -> None:
        """The partition's log was trimmed: what a checkpoint says of the run stands for its first records."""
        self._tallies.begin(state)
        self.trimmed_before = state.next_offset
        run = state.runs.get(self.run)
        if run is not None and self._keep:
            self.entries += known_of(run, state)

    def see(self, seen: Seen) -> HistoryEntry | None:
        """The entry that this record makes in the run's history, if it is about the run."""
        self._tallies.see(seen)
        for instruction in seen.folded.instructions:
            if isinstance(instruction, Close):
                tally = self._tallies.take(instruction.run.id)
                if instruction.run.id == self.run:
                    summary = summary_of(instruction.run, tally, instruction.ended, instruction.at_ms)
                    self.detail = detail_of(instruction.run, summary, instruction.ended, {})
        entry = entry_of(seen, self.run)
        if entry is not None and self._keep:
            self.entries.append(entry)
            self.entries += copied_to(seen, self.run)
        return entry

    def end(self, state: PartitionState) -> None:
        """The end of the partition: describe the run as it is now."""
        self.detail = self.current(state)

    def current(self, state: PartitionState) -> RunDetail | None:
        """The run as the partition stands, or as it ended; None if it was never there."""
        run = state.runs.get(self.run)
        if run is not None:
            return detail_of(run, summary_of(run, self._tallies.of(self.run), None, None), None, state.approvals)
        failed = state.failed.get(self.run)
        if self.detail is None or failed is None:
            return self.detail
        summary = msgspec.structs.replace(self.detail.summary, retriable=True)
        return msgspec.structs.replace(self.detail, summary=summary, retry=failed.retry)
