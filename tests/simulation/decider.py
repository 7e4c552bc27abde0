"""Somebody who decides what runs ask: early, late, at the very deadline, twice, both ways, and without the role that is wanted."""

from collections.abc import Callable
from random import Random

from headrace.topics.approval import Verdict
from headrace.topics.command import Approve
from headrace.topics.identity import ClientId
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.run_record import CommandRecord, encode
from tests.simulation.judge import Asked, Judge, Run


class Decider:
    """`append` puts a record into a run log; `later` calls that many seconds from now; `now_ms` is a partition's clock."""

    def __init__(
        self,
        random: Random,
        judge: Judge,
        append: Callable[[TopicPartition, NewRecord], None],
        later: Callable[[float, Callable[[], None]], None],
        now_ms: Callable[[TopicPartition], float],
    ) -> None:
        self.sent = 0
        self._random = random
        self._judge = judge
        self._append = append
        self._later = later
        self._now_ms = now_ms
        self._timed: set[str] = set()  # approvals for whose deadline somebody waits

    def look(self) -> None:
        """See to some of it."""
        for run in list(self._judge.runs.values()):
            for step, asked in list(run.asked.items()):
                if asked.lost:
                    continue
                if asked.due_at_ms is not None and f"{run.id}{step}" not in self._timed:
                    self._timed.add(f"{run.id}{step}")
                    if self._random.random() < 0.5:
                        self._wait_for(run, step, asked.due_at_ms)
                if self._random.random() < (0.02 if step in run.settled or run.ended is not None else 0.4):
                    self._decide(run, step, asked)

    def _wait_for(self, run: Run, step: str, due_at_ms: int) -> None:
        """The decision and the deadline come at about the same time."""
        left_s = (due_at_ms - self._now_ms(run.at)) / 1000 + self._random.uniform(-0.02, 0.02)
        if left_s > 0:
            self._later(left_s, lambda: self._decide(run, step, run.asked[step]))

    def _decide(self, run: Run, step: str, asked: Asked) -> None:
        verdicts = [self._random.choice(list(Verdict))]
        if self._random.random() < 0.3:
            verdicts = list(Verdict)
            self._random.shuffle(verdicts)
        for verdict in verdicts:
            self.sent += 1
            roles = (
                (asked.role,) if asked.role and self._random.random() < 0.8 else self._random.choice(((), ("clerk",)))
            )
            body = Approve(run=run.id, step=step, decision=verdict, by=f"d{self.sent}", roles=roles)
            record = CommandRecord(id=ClientId(f"decision/{self.sent}"), body=body)
            for _ in range(self._random.choice((1, 1, 2))):  # an append that was not answered is repeated
                self._append(run.at, NewRecord(encode(record)))
