"""Which hook makes which line; and the page that lists them."""

import ast
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from headrace.observability import log_observer
from headrace.observability.console import ConsoleObserver, duration, line
from headrace.observability.label import BreakerState, DiscardReason, Ending, LossReason
from headrace.observability.log_event import MEANINGS, LogEvent
from headrace.observability.log_observer import LogObserver, exceeded_to, report_to
from headrace.observability.logs import Format, Logs
from headrace.topics.outcome import RunStatus
from tests.observability.workload import ANCHOR, ONE_OF_EACH, RUN, tell_all

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "headrace"


def told(hook: str, level: int = logging.DEBUG, **changes: Any) -> list[dict[str, Any]]:
    stream = io.StringIO()
    observer = LogObserver(Logs(stream=stream, style=Format.JSON, level=level))
    getattr(observer, hook)(replace(ONE_OF_EACH[hook], **changes))
    return [json.loads(text) for text in stream.getvalue().splitlines()]


def test_the_page_lists_the_vocabulary() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (\w+) \| (.+) \|$", (ROOT / "docs" / "logs.md").read_text(), re.MULTILINE)
    assert rows == [
        (event, logging.getLevelName(meaning.level).lower(), meaning.says) for event, meaning in MEANINGS.items()
    ]


def test_every_event_has_a_meaning_and_the_form_noun_past() -> None:
    assert list(MEANINGS) == list(LogEvent)
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", event) for event in LogEvent)


def test_every_event_is_written_somewhere() -> None:
    used = {
        node.attr
        for file in PACKAGE.rglob("*.py")
        if file.name != "log_event.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "LogEvent"
    }
    assert used == set(LogEvent.__members__)


def test_at_debug_one_of_each_hook_makes_lines_of_the_vocabulary_only() -> None:
    stream = io.StringIO()
    tell_all(LogObserver(Logs(stream=stream, style=Format.JSON, level=logging.DEBUG)))
    events = [json.loads(text)["event"] for text in stream.getvalue().splitlines()]
    assert set(events) <= set(LogEvent)
    for_metrics = {"events_consumed", "events_matched", "appended", "log_folded"}
    for_metrics |= {"read_back", "produced", "breaker_called", "rate_limit_passed", "http_answered"}
    assert len(events) == len(ONE_OF_EACH) - len(for_metrics | {"loop_delayed"})


@pytest.mark.parametrize("hook", ["run_started", "attempt_started", "timer_armed", "timer_fired", "output_sent"])
def test_what_happens_for_every_run_is_silent_at_info(hook: str) -> None:
    assert told(hook, logging.INFO) == []
    assert len(told(hook)) == 1


@pytest.mark.parametrize(
    ("status", "level"),
    [
        ("succeeded", "debug"),
        ("cancelled", "info"),
        ("compensated", "info"),
        ("failed", "warning"),
        ("timed_out", "warning"),
    ],
)
def test_a_finished_run_speaks_by_its_status(status: str, level: str) -> None:
    (shown,) = told("run_finished", status=RunStatus(status))
    assert (shown["event"], shown["level"], shown["status"]) == ("run.finished", level, status)
    assert (shown["run_id"], shown["workflow"], shown["trace_id"]) == (RUN, "fulfil", ANCHOR[3:35])


@pytest.mark.parametrize(
    ("ending", "retry_after_ms", "event", "level"),
    [
        (Ending.SUCCEEDED, None, "attempt.succeeded", "debug"),
        (Ending.CANCELLED, None, "attempt.cancelled", "debug"),
        (Ending.FAILED, 100, "attempt.failed", "info"),
        (Ending.FAILED, None, "attempt.failed", "warning"),
        (Ending.TIMED_OUT, None, "attempt.failed", "warning"),
        (Ending.REJECTED, None, "attempt.failed", "warning"),
    ],
)
def test_an_attempt_speaks_by_how_it_ended(ending: Ending, retry_after_ms: int | None, event: str, level: str) -> None:
    (shown,) = told("attempt_ended", ending=ending, retry_after_ms=retry_after_ms)
    assert (shown["event"], shown["level"]) == (event, level)
    assert (shown["task"], shown["handler"], shown["attempt"]) == ("/1/charge", "charge", 2)


def test_discarded_events_speak_by_reason() -> None:
    events = [told("event_discarded", reason=reason)[0]["event"] for reason in DiscardReason]
    assert events == ["event.unmatched", "event.duplicated", "event.expired"]


def test_a_loss_speaks_by_its_reason() -> None:
    assert told("partition_lost", reason=LossReason.SHUTDOWN)[0]["level"] == "info"
    assert told("partition_lost")[0]["level"] == "warning"
    assert told("partition_lost", reason=LossReason.TRUNCATED)[0]["level"] == "error"


def test_an_opening_breaker_is_a_warning() -> None:
    assert told("breaker_changed")[0]["level"] == "warning"
    assert told("breaker_changed", after=BreakerState.CLOSED)[0]["level"] == "info"


def test_a_blocked_loop_is_named_and_its_end_told() -> None:
    stream = io.StringIO()
    observer = LogObserver(Logs(stream=stream, style=Format.JSON))
    observer.loop_delayed(ONE_OF_EACH["loop_delayed"])
    observer.loop_blocked(ONE_OF_EACH["loop_blocked"])
    observer.loop_delayed(ONE_OF_EACH["loop_delayed"])
    observer.loop_delayed(ONE_OF_EACH["loop_delayed"])
    blocked, resumed = (json.loads(text) for text in stream.getvalue().splitlines())
    assert (blocked["event"], blocked["handler"], blocked["where"]) == ("loop.blocked", "charge", "app.py:7 in charge")
    assert resumed["event"] == "loop.resumed"


def test_a_failed_observer_and_a_used_up_budget_are_lines() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream, style=Format.JSON)
    report_to(logs)("PrometheusObserver", "run_started", ZeroDivisionError("division by zero"))
    exceeded_to(logs)("headrace_task_attempts_total")
    failed, folded = (json.loads(text) for text in stream.getvalue().splitlines())
    assert (failed["event"], failed["observer"], failed["error"]) == (
        "observer.failed",
        "PrometheusObserver",
        "ZeroDivisionError",
    )
    assert (folded["event"], folded["family"]) == ("series.folded", "headrace_task_attempts_total")


def test_no_line_is_made_outside_of_the_vocabulary() -> None:
    source = ast.parse(Path(log_observer.__file__).read_text())
    writes = [
        node
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write"
    ]
    assert writes
    assert not [node for node in writes if isinstance(node.args[0], ast.Constant)]


def test_the_console_shows_a_line_for_each_finished_run() -> None:
    stream = io.StringIO()
    console = ConsoleObserver(stream)
    tell_all(console)
    assert stream.getvalue() == line(ONE_OF_EACH["run_finished"]) + "\n"
    for part in ("fulfil", "order-1", "failed", "84 ms", "2 retries", "/3/charge TaskFailed: charge failed"):
        assert part in stream.getvalue()


def test_the_consoles_line_cannot_be_forged() -> None:
    hostile = replace(ONE_OF_EACH["run_finished"], key="a\n\x1b[2J", message="b\r\nc", workflow="w" * 1000)
    shown = line(hostile)
    assert shown.isprintable()
    assert len(shown) < 300


def test_the_console_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    ConsoleObserver(stream).run_finished(ONE_OF_EACH["run_finished"])
    assert "\x1b[31mfailed" in stream.getvalue()


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(0.84, "0.8 ms"), (84.2, "84 ms"), (2310, "2.31 s"), (59_999, "60.00 s"), (185_000, "3 min 5 s")],
)
def test_durations_are_for_people(duration_ms: float, text: str) -> None:
    assert duration(duration_ms) == text


# in the second the blocked turn was told before the block was
@pytest.mark.parametrize("delays_ms", [[700.0, 0.1], [0.1]])
def test_the_end_of_a_block_says_how_long_it_was_whichever_was_told_first(delays_ms: list[float]) -> None:
    stream = io.StringIO()
    observer = LogObserver(Logs(stream=stream, style=Format.JSON, level=logging.DEBUG))
    observer.loop_blocked(replace(ONE_OF_EACH["loop_blocked"], blocked_ms=650.0))
    for delay_ms in delays_ms:
        observer.loop_delayed(replace(ONE_OF_EACH["loop_delayed"], delay_ms=delay_ms))
    lines = [json.loads(text) for text in stream.getvalue().splitlines()]
    (resumed,) = [line for line in lines if line["event"] == "loop.resumed"]
    assert resumed["blocked_ms"] >= 650
