"""The operator: somebody who looks every few seconds at what was parked and at what failed, and says what shall become of it, as `headrace run` lets people.

What makes a program end its process, or fail, is seen to by nobody else: until then it does so at every try.
"""

from collections.abc import Callable
from random import Random

from headrace.topics.command import Cancel, Command, Dismiss, Resume, Retry
from headrace.topics.identity import ClientId, run_id
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import ParkReason, RunStatus
from headrace.topics.run_record import CommandRecord, encode
from tests.simulation.judge import Judge, Run

EVERY_S = 4.0
_CHAIN_MAX = 3  # runs, the first one included
_FAILED = {RunStatus.FAILED, RunStatus.COMPENSATED, RunStatus.TIMED_OUT}


class Operator:
    """`append` puts a record into a run log. `cured`: programs that end no process any more; `mended`: runs that fail no more as the program says."""

    def __init__(
        self, random: Random, judge: Judge, append: Callable[[TopicPartition, NewRecord], None], *, retries: float
    ) -> None:
        self.cured: set[str] = set()
        self.mended: set[str] = set()
        self.did: list[str] = []
        self._random = random
        self._judge = judge
        self._append = append
        self._retries = retries
        self._intents: dict[tuple[str, ParkReason], list[str]] = {}  # tried one after the other; the last one again
        self._considered: set[str] = set()  # failed runs
        self._sent = 0

    def look(self) -> None:
        """See to some of it."""
        for run in list(self._judge.runs.values()):
            if run.parked is not None and self._random.random() < 0.5:
                self._parked(run)
            elif run.ended is not None and run.id not in self._considered:
                self._considered.add(run.id)
                if run.ended.status in _FAILED and self._random.random() < self._retries:
                    self._failed(run)

    def pending(self) -> list[str]:
        """What nobody has looked at yet."""
        runs = self._judge.runs.values()
        return [f"{run.id} is parked: {run.parked}" for run in runs if run.parked is not None] + [
            f"{run.id} has ended" for run in runs if run.ended is not None and run.id not in self._considered
        ]

    def _parked(self, run: Run) -> None:
        assert run.parked is not None
        which = (run.id, run.parked.reason)
        intents = self._intents.get(which)
        if intents is None:
            poison = run.parked.reason is ParkReason.POISON
            drawn = (["cure"], ["resume", "cure"], ["cancel"]) if poison else (["resume"], ["resume"], ["cancel"])
            intents = self._intents[which] = list(self._random.choice(drawn))
        intent = intents.pop(0) if len(intents) > 1 else intents[0]
        if run.id in self._judge.harmed:  # what is left of it in the log may never fit its code again
            intent = "cancel"
        if intent == "cure":
            program = self._judge.program_of(run)
            if program is not None:
                self.cured.add(program.id)
        self._say(run, Cancel(run=run.id, reason="parked") if intent == "cancel" else Resume(run=run.id), intent)

    def _failed(self, run: Run) -> None:
        if len(run.chain()) >= _CHAIN_MAX:
            return
        intent = self._random.choice(("retry", "retry", "mend", "mend", "from", "dismiss"))
        if intent == "dismiss":
            self._say(run, Dismiss(run=run.id), intent)
            return
        steps = list(run.settled) if intent == "from" else []
        identity = ClientId(f"retry/{run.id}")
        if intent == "mend":
            self.mended.add(run_id(run.at.partition, identity))
        self._say(run, Retry(run=run.id, from_step=self._random.choice(steps) if steps else ""), intent, identity)

    def _say(self, run: Run, command: Command, intent: str, identity: ClientId | None = None) -> None:
        self._sent += 1
        self.did.append(intent)
        record = CommandRecord(id=identity or ClientId(f"operator/{self._sent}"), body=command)
        for _ in range(self._random.choice((1, 1, 2))):  # an append that was not answered is repeated
            self._append(run.at, NewRecord(encode(record)))
