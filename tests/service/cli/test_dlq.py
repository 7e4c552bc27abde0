"""`headrace dlq` on dead letters that are known one by one."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from headrace.service.cli.exit_code import ExitCode
from headrace.topics.dead_letter import Stage, dead_letter
from headrace.topics.log import LogRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from tests.service.cli.conftest import Headrace
from tests.service.cli.recorded import LOG, SOURCE, Recording

T = TypeVar("T")
ID = f"{SOURCE}.dlq/0/0"


@pytest.fixture
def letters(headrace: Headrace) -> None:
    """Three of orders in partition 0, one of them with another code."""

    async def bury() -> None:
        async with Recording() as recording:
            for n, code in enumerate(("HR3030", "HR3006", "HR3030")):
                record = LogRecord(n, 1_000, b"k%d" % n, json.dumps({"n": n}).encode(), (("note", b"fragile"),))
                at = TopicPartition(SOURCE, 0)
                stage = Stage.DECODE if code == "HR3006" else Stage.MATCH
                made = dead_letter(record, at, stage=stage, code=code, error="no", attempts=1, workflow="fulfil")
                await recording.log.publish(TopicPartition(f"{SOURCE}.dlq", 0), [made])

    asyncio.run(bury())


def looked(look: Callable[[EmbeddedLog], Awaitable[T]]) -> T:
    async def read() -> T:
        async with EmbeddedLog(LOG, owner=False) as log:
            return await look(log)

    return asyncio.run(read())


def sent() -> int:
    """Records in the source topic."""

    async def count(log: EmbeddedLog) -> int:
        spans = await log.offsets([TopicPartition(SOURCE, number) for number in range(8)])
        return sum(span.end for span in spans.values())

    return looked(count)


def test_lists_and_shows_what_is_there(headrace: Headrace, letters: None) -> None:
    rows = headrace("dlq", "list", "-o", "json").json
    assert [row["id"] for row in rows] == [f"{SOURCE}.dlq/0/{offset}" for offset in (2, 1, 0)]
    assert set(rows[0]) == {
        *("id", "topic", "partition", "offset", "at", "state", "stage", "code", "error", "workflow", "app", "source"),
        *("to", "key", "attempts", "bytes", "kept", "redrives", "handled_at", "handled_by", "note"),
    }
    assert headrace("dlq", "list", "--code", "HR3006", "-o", "name").lines == [f"{SOURCE}.dlq/0/1"]
    assert headrace("dlq", "list", "--stage", "decode", "--limit", "1", "-o", "name").lines == [f"{SOURCE}.dlq/0/1"]
    table = headrace("dlq", "list").lines
    assert table[0].split()[:3] == ["DEAD", "LETTER", "TIME"]
    shown = headrace("dlq", "get", ID).out
    assert "header note" in shown
    assert '{"n": 0}' in shown
    assert headrace("dlq", "get", ID, "-o", "json").json["headers"] == [["note", "fragile"]]
    counts = headrace("dlq", "stats", "-o", "json").json
    assert [(row["code"], row["open"]) for row in counts] == [("HR3006", 1), ("HR3030", 2)]


def test_one_is_redriven_once(headrace: Headrace, letters: None) -> None:
    done = headrace("dlq", "redrive", ID, "--note", "mended", "-o", "json")
    assert done.json == {"id": ID, "to": f"{SOURCE}/0/0", "count": 1}
    second = headrace("dlq", "redrive", ID)
    assert second.code == ExitCode.CONFLICT
    assert second.err.startswith("HR3302")
    assert headrace("dlq", "redrive", ID, "--again", "-o", "json").json["count"] == 2
    assert sent() == 2
    shown = headrace("dlq", "get", ID, "-o", "json").json
    assert (shown["state"], shown["redrives"]) == ("redriven", 2)
    assert headrace("dlq", "list", "--state", "redriven", "-o", "name").lines == [ID]
    tailed = headrace("event", "tail", SOURCE, "--from", "start", "--no-follow", "-o", "json")
    assert tailed.lines


def test_many_are_asked_about(headrace: Headrace, letters: None) -> None:
    counted = headrace("dlq", "redrive", "--code", "HR3030", "--dry-run", "-o", "json")
    assert (counted.code, counted.json["selected"]) == (0, 2)
    assert "2 dead letters would be redriven." in counted.err
    unasked = headrace("dlq", "redrive", "--code", "HR3030")
    assert unasked.code == ExitCode.USAGE
    assert "--yes" in unasked.err
    assert sent() == 0
    done = headrace("dlq", "redrive", "--code", "HR3030", "--yes", "-o", "json")
    assert done.json == {"selected": 2, "redriven": 2, "skipped": 0, "refused": 0}
    assert sent() == 2
    assert headrace("dlq", "redrive", "--code", "HR3030", "--yes", "-o", "json").json["selected"] == 0
    some = headrace("dlq", "redrive", f"{SOURCE}.dlq/0/1", ID, "-o", "json")
    assert (some.code, some.json["redriven"], some.json["skipped"]) == (ExitCode.CONFLICT, 1, 1)


def test_resolved_ones_are_gone(headrace: Headrace, letters: None) -> None:
    done = headrace("dlq", "resolve", f"{SOURCE}.dlq/0/1", "--note", "a test order", "-o", "json").json
    assert (done["resolved"], done["deleted"]) == (1, 0)
    shown = headrace("dlq", "get", f"{SOURCE}.dlq/0/1", "-o", "json").json
    assert (shown["state"], shown["note"]) == ("resolved", "a test order")
    done = headrace("dlq", "resolve", "--topic", SOURCE, "--yes", "-o", "json").json
    assert (done["selected"], done["resolved"], done["deleted"]) == (2, 2, 3)
    assert headrace("dlq", "list", "--state", "all", "-o", "name").lines == []
    assert headrace("dlq", "get", ID).code == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    "arguments",
    [
        ("redrive",),
        ("redrive", ID, "--topic", SOURCE),
        ("redrive", ID, "--rate", "-1"),
        ("resolve",),
        ("list", "--stage", "nonsense"),
        ("list", "--state", "nonsense"),
        ("list", "--since", "soon"),
        ("list", "--limit", "-1"),
    ],
)
def test_what_makes_no_sense_is_said(headrace: Headrace, letters: None, arguments: tuple[str, ...]) -> None:
    answer = headrace("dlq", *arguments)
    assert answer.code == ExitCode.USAGE, answer.err
    assert sent() == 0


@pytest.mark.parametrize("verb", ["get", "redrive", "resolve"])
def test_a_letter_that_is_not_there(headrace: Headrace, letters: None, verb: str) -> None:
    answer = headrace("dlq", verb, f"{SOURCE}.dlq/0/99")
    assert answer.code == ExitCode.NOT_FOUND
    assert answer.err.startswith("HR3301")
