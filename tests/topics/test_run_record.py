"""The run log's records on the wire: what was written is read back, and nothing is ever guessed."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.approval import Verdict
from headrace.topics.command import (
    Abandoned,
    Approve,
    Cancel,
    ChildEnded,
    Command,
    Deliver,
    Dismiss,
    Epoch,
    OnConflict,
    Parent,
    PauseSchedule,
    Resume,
    ResumeSchedule,
    Retry,
    SourceRecord,
    Start,
)
from headrace.topics.errors import Cause, Fatal
from headrace.topics.event import EventMeta
from headrace.topics.identity import ClientId, Coordinates, SlotId
from headrace.topics.outcome import (
    ApprovalRequested,
    AttemptFailed,
    AttemptsGiven,
    AttemptSucceeded,
    CheckpointChunk,
    ChildStarted,
    Emitted,
    OutboxProgress,
    Outcome,
    OutputRefused,
    ParkReason,
    ProbePassed,
    RunEnded,
    RunningAttempt,
    RunParked,
    RunProbed,
    RunStatus,
    ScheduleSeen,
    ScheduleUnnamed,
    Sent,
    SlotsMissed,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)
from headrace.topics.run_record import (
    Announce,
    CommandRecord,
    OutcomeRecord,
    Release,
    RunRecord,
    UnknownRecord,
    decode,
    encode,
)
from headrace.topics.schedule import Misfire, Overlap, ScheduleDefinition, ScheduleSpec, Slot

RAW = msgspec.Raw(b'{"x":[1,2.5,"\xc3\xa9",null]}')
META = EventMeta("e", "/s", "t", "orders", 3, 17, key="k", subject="s", extensions={"traceid": "1"})
SUCCEEDED = AttemptSucceeded("0.r", "/1/work", "work", 2, RAW, 1_700_000_000_000, 1.25)
FAILED = AttemptFailed("0.r", "/1/work", "work", 1, Cause.TIMED_OUT, "E", "m", 5, 2.5, 100)

COMMANDS: list[Command] = [
    Start("default", "shop", "1", RAW),
    Start(
        "default",
        "shop",
        "1",
        RAW,
        trigger="manual",
        key="k",
        policy=OnConflict.REJECT,
        timeout_ms=5,
        event=META,
        event_at_ms=7,
        traceparent="tp",
        tracestate="ts",
        record=SourceRecord(b"\x00\xff", None, (("h", b"\x80"),), 9),
    ),
    Deliver(4, SUCCEEDED),
    Deliver(4, FAILED),
    Deliver(4, Abandoned("0.r", "/1/work", 3)),
    Cancel("0.r", "why"),
    Resume("0.r"),
    Retry("0.r"),
    Retry("0.r", "/2/work"),
    Dismiss("0.r"),
    Start("default", "shop", "1", RAW, trigger="child", parent=Parent("0.r", "/1/shop", awaited=True, depth=2)),
    ChildEnded("0.r", "/1/shop", "1.r", "shop", RunStatus.SUCCEEDED, RAW),
    ChildEnded("0.r", "/1/shop", "1.r", "shop", RunStatus.FAILED, cause=Cause.KEY_HELD, error="E", message="m"),
    Epoch("orders", 2, (5, 0)),
    Approve("0.r", "/1/approval", Verdict.APPROVED, "ann"),
    Approve("0.r", "/1/approval", Verdict.REJECTED, "ann", "too dear", ("boss", "clerk")),
    Start("default", "shop", "1", RAW, trigger="schedule", event_at_ms=7, slot=Slot("shop-0123456789", 7, 5)),
    PauseSchedule("shop-0123456789"),
    ResumeSchedule("shop-0123456789"),
]
OUTCOMES: list[Outcome] = [
    RunProbed("0.r"),
    ProbePassed("0.r"),
    SUCCEEDED,
    FAILED,
    AttemptFailed("0.r", "/1/work", "work", 1, Cause.RAISED, "E", "m", 5, 2.5),
    TimerArmed("0.r", "/1/sleep", 5),
    TimerFired("0.r", "/timeout", 5),
    ApprovalRequested("0.r", "/1/approval"),
    ApprovalRequested("0.r", "/1/approval", "Pay?", ("boss",), 5, 2),
    StepsCancelled("0.r", ("/1/work", "/2/work")),
    Emitted("0.r", "/1/emit", "out", "t", RAW, "k", "s"),
    Emitted("0.r", "/1/emit", "out", "t", RAW),
    ChildStarted("0.r", "/1/shop", "default", "shop", "1", RAW, awaited=False),
    ChildStarted("0.r", "/1/shop", "default", "shop", "1", RAW, True, "k", OnConflict.JOIN, 5, "tp", "ts"),
    OutboxProgress((Sent("0.r/1/emit", 0, 5), Sent("forward/3", 1, 6))),
    OutputRefused("0.r/1/emit", "HR6001", "no"),
    AttemptsGiven((RunningAttempt("0.r", "/1/work", 1), RunningAttempt("0.r", "/2/work", 3)), 10_000),
    RunEnded("0.r", RunStatus.SUCCEEDED, RAW),
    RunEnded("0.r", RunStatus.COMPENSATED, error="E", message="m", failed_step="/1/work", undone=1, undo_failed=2),
    RunParked("0.r", ParkReason.NONDETERMINISTIC, "/1/work", "e", "f"),
    CheckpointChunk(4, 0, last=False, items=(RAW, msgspec.Raw(b'["run","0.r",{}]'))),
    CheckpointChunk(4, 1, last=True, items=()),
    ScheduleSeen(
        "shop-0123456789",
        ScheduleDefinition(
            "default",
            "shop",
            "1",
            ScheduleSpec("0 9 * * *", None, "Europe/Berlin", Misfire.ALL, Overlap.QUEUE, 5, 9),
            timeout_ms=5,
            takes_tick=False,
        ),
    ),
    SlotsMissed("shop-0123456789", 5, 9, 11, 4),
    ScheduleUnnamed("shop-0123456789"),
]
RECORDS: list[RunRecord] = [
    Announce("app", "i", "m", "n", -1, 12),
    Release(5, 7, (RunningAttempt("0.r", "/1/work", 1),), 10_000),
    *[CommandRecord(ClientId("c"), command) for command in COMMANDS],
    CommandRecord(Coordinates(0, "orders", 3, 17, "abc", 5), Resume("0.r")),
    CommandRecord(SlotId("shop-0123456789", 7), Resume("0.r")),
    *[OutcomeRecord(5, 6, outcome) for outcome in OUTCOMES],
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(getattr(record, "body", record)).__name__)
def test_what_was_written_is_read_back(record: RunRecord) -> None:
    assert decode(encode(record)) == record
    assert encode(decode(encode(record))) == encode(record)


def test_every_kind_is_here() -> None:
    assert {type(command) for command in COMMANDS} == set(get_args(Command))
    assert {type(outcome) for outcome in OUTCOMES} == set(get_args(Outcome))
    assert {type(record) for record in RECORDS} == set(get_args(RunRecord))


@given(st.text(), st.text(), st.integers(-1, 2**53), st.integers(0, 2**53))
def test_any_text_and_number_survives(run: str, step: str, token: int, due_at_ms: int) -> None:
    record = OutcomeRecord(token, 0, TimerArmed(run, step, due_at_ms))
    assert decode(encode(record)) == record


def test_a_record_is_json_with_its_kind_and_version() -> None:
    shown = msgspec.json.decode(encode(OutcomeRecord(5, 6, TimerFired("0.r", "/1/sleep", 9))))
    assert shown == {
        "kind": "outcome",
        "token": 5,
        "seq": 6,
        "body": {"is": "timer.fired", "run": "0.r", "step": "/1/sleep", "due_at_ms": 9},
        "v": 1,
    }


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"kind":"outcome"}',
        b'{"kind":"unheard","v":1}',
        b'{"kind":"command","id":["i","c"],"body":{"is":"unheard"},"v":1}',
        b'{"kind":"command","id":["x","c"],"body":{"is":"resume","run":"r"},"v":1}',
        b'{"kind":"command","id":["i","\xff"],"body":{"is":"resume","run":"r"},"v":1}',
        b'{"kind":"outcome","token":1,"seq":2,"body":{"is":"unheard","run":"r"},"v":1}',
        b'{"kind":"outcome","token":"1","seq":2,"body":{"is":"output.refused","entry":"","code":"","message":""},"v":1}',
        b'{"kind":"outcome","token":1,"seq":2,"body":{"is":"run.ended","run":"r","status":"unheard"},"v":1}',
        b'{"kind":"outcome","token":1,"seq":2,"body":{"is":"run.parked","run":"r","reason":"poison"},"v":2}',
        b'{"kind":"announce","app":"a","instance":"i","member":"m","nonce":"n","previous_token":-1,"partitions":1,"v":0}',
        b'{"kind":"outcome","token":1,"seq":2,"v":1,"body":' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_stops_the_partition(value: bytes | None) -> None:
    with pytest.raises(UnknownRecord) as caught:
        decode(value)
    assert isinstance(caught.value, Fatal)
    assert caught.value.code == "HR5101"


@given(st.binary(max_size=200))
def test_nothing_but_an_unknown_record_comes_out_of_foreign_bytes(value: bytes) -> None:
    with pytest.raises(UnknownRecord):
        decode(value)


def test_a_field_that_a_newer_writer_adds_is_passed_over() -> None:
    """Within a format version only fields with a default may be added."""
    value = b'{"kind":"command","id":["i","c"],"body":{"is":"resume","run":"r","new":1},"v":1,"also":{}}'
    assert decode(value) == CommandRecord(ClientId("c"), Resume("r"))
