"""Commands: records of the run log that anyone may append. Deduplicated by identity; never fenced.

Released meanings never change: add a command, do not alter one.
"""

from __future__ import annotations

import msgspec

from headrace.topics.approval import Verdict
from headrace.topics.errors import Cause
from headrace.topics.event import EventMeta
from headrace.topics.on_conflict import OnConflict
from headrace.topics.outcome import AttemptFailed, AttemptSucceeded, RunStatus
from headrace.topics.redrive import Redriven
from headrace.topics.schedule import Slot


class SourceRecord(msgspec.Struct, frozen=True, gc=False):
    """A source record's bytes (base64 in JSON), carried by starts with policy `reject`: their dead letter is made by the fold."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


class Parent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The step of another run that a run is the child of.

    `awaited`: its end is that step's result. `depth`: so many runs wait for it, one through the other.
    """

    run: str
    step: str
    awaited: bool
    depth: int = 1


class Start(msgspec.Struct, frozen=True, tag_field="is", tag="start", omit_defaults=True, gc=False):
    """Begin a run. `input` is the event's data as JSON. `key` and `policy` matter only together: without a key the policy is `allow`."""

    namespace: str
    workflow: str
    version: str
    input: msgspec.Raw
    trigger: str = "event"  # event, manual, child, ...: the metric label
    key: str | None = None
    policy: OnConflict = OnConflict.ALLOW
    timeout_ms: int | None = None
    event: EventMeta | None = None
    event_at_ms: int | None = None  # the source record's timestamp, or the slot
    traceparent: str | None = None  # the producer's context; of a child, its parent's
    tracestate: str | None = None
    record: SourceRecord | None = None
    redriven: Redriven | None = None
    parent: Parent | None = None
    slot: Slot | None = None  # of a schedule

    @property
    def contended_key(self) -> str | None:
        """The key, if runs of one key may not be open at once: None where there is no key, or no policy about it."""
        return None if self.policy is OnConflict.ALLOW else self.key

    @property
    def awaited(self) -> bool | None:
        """Whether a step of another run waits for the run's end. None: it is nobody's child."""
        return None if self.parent is None else self.parent.awaited


class Abandoned(msgspec.Struct, frozen=True, tag_field="is", tag="abandoned", gc=False):
    """The attempt was cancelled when the grace of its giver ended: repeat it with the same number and key."""

    run: str
    step: str
    number: int


class Deliver(msgspec.Struct, frozen=True, tag_field="is", tag="deliver", gc=False):
    """The result of an attempt whose owner has released its partition. Identity is the attempt: the first result wins."""

    token: int  # of the release
    result: AttemptSucceeded | AttemptFailed | Abandoned


class Cancel(msgspec.Struct, frozen=True, tag_field="is", tag="cancel", gc=False):
    """End a run: open steps are cancelled, finished tasks undone, status `cancelled`. Without effect on an ended run."""

    run: str
    reason: str = ""


class ChildEnded(msgspec.Struct, frozen=True, tag_field="is", tag="child.ended", omit_defaults=True, gc=False):
    """The child run that the step of `run` awaits has ended, or will never begin: the step's result. `child` is the run that ended.

    `cause` is there if it did not succeed. Without effect if the step is over: the parent has given it up, has ended, or knows already.
    """

    run: str
    step: str
    child: str
    workflow: str
    status: RunStatus
    result: msgspec.Raw = msgspec.Raw(b"null")
    cause: Cause | None = None
    error: str = ""
    message: str = ""


class Resume(msgspec.Struct, frozen=True, tag_field="is", tag="resume", gc=False):
    """Bring a parked run back. Without effect on others."""

    run: str


class Retry(msgspec.Struct, frozen=True, tag_field="is", tag="retry", omit_defaults=True, gc=False):
    """Begin a new run in place of one that failed, with the results of its finished tasks: of all, or of those that finished before `from_step` did.

    Without effect if the run cannot be retried (any more), if a retry of it is open, or if its key has an open run and its policy is not `queue`.
    """

    run: str
    from_step: str = ""


class Dismiss(msgspec.Struct, frozen=True, tag_field="is", tag="dismiss", gc=False):
    """Nobody will retry this failed run: forget what was kept of it."""

    run: str


class Epoch(msgspec.Struct, frozen=True, tag_field="is", tag="epoch", gc=False):
    """A source topic is read anew, from these offsets on, by partition. Goes to every partition of the run log before anything is read.

    Commands of the topic's older epochs have no effect behind it; in this one everything below the offsets counts as done. Without effect if it is not newer.
    """

    topic: str
    epoch: int
    offsets: tuple[int, ...]


class Approve(msgspec.Struct, frozen=True, tag_field="is", tag="approve", omit_defaults=True, gc=False):
    """Somebody's decision about what a run asks at a step; `roles` are those of who decides.

    Counts once, if its own timestamp is before the deadline and one of the roles is asked for, or none is. Without effect otherwise.
    """

    run: str
    step: str
    decision: Verdict
    by: str
    note: str = ""
    roles: tuple[str, ...] = ()


class PauseSchedule(msgspec.Struct, frozen=True, tag_field="is", tag="schedule.pause", gc=False):
    """Start no more runs of a schedule, until it is resumed. Without effect where it is not known, or paused already."""

    schedule: str


class ResumeSchedule(msgspec.Struct, frozen=True, tag_field="is", tag="schedule.resume", gc=False):
    """Let a paused schedule go on with the next slot: those in between are nobody's. Without effect on others."""

    schedule: str


Command = (
    Start | Deliver | Cancel | ChildEnded | Resume | Retry | Dismiss | Epoch | Approve | PauseSchedule | ResumeSchedule
)
