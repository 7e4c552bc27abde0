"""Lines: one each, whole, clean, in either form."""

import io
import json
import logging
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.observability.log_event import LogEvent
from headrace.observability.log_text import TEXT_LENGTH_MAX, Secret, Secrets, one_line
from headrace.observability.logs import Field, Format, Logs
from headrace.observability.repeats import LINES_MAX, WINDOW_S, LeaveOut, Pass, Repeats

CANARY = "hunter2-canary"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_event_first() -> None:
    stream = io.StringIO()
    Logs(stream=stream).write(LogEvent.PARTITION_TAKEN, partition=3, reason="start", runs=None, topic="")
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "partition", "reason"]
    assert (line["level"], line["event"], line["partition"]) == ("info", "partition.taken", 3)
    assert line["timestamp"].endswith("Z")


def test_a_terminal_gets_colours_unless_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    Logs(stream=coloured).write(LogEvent.RUN_PARKED, workflow="fulfil")
    monkeypatch.setenv("NO_COLOR", "1")
    Logs(stream=plain).write(LogEvent.RUN_PARKED, workflow="fulfil")
    assert "\x1b[" in coloured.getvalue()
    assert "\x1b[" not in plain.getvalue()
    assert "run.parked" in plain.getvalue()
    assert "workflow=fulfil" in plain.getvalue()


def test_the_form_can_be_chosen() -> None:
    terminal, file = Terminal(), io.StringIO()
    Logs(stream=terminal, style=Format.JSON).write(LogEvent.RUN_PARKED)
    Logs(stream=file, style=Format.CONSOLE).write(LogEvent.RUN_PARKED)
    assert len(lines(terminal)) == 1
    assert "run.parked" in file.getvalue()
    assert not file.getvalue().startswith("{")


def test_the_level_can_be_changed_while_running() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream)
    logs.write(LogEvent.RUN_STARTED)
    logs.set_level("debug")
    logs.write(LogEvent.RUN_STARTED)
    logs.set_level("error")
    logs.write(LogEvent.PARTITION_LOST)
    assert [line["event"] for line in lines(stream)] == ["run.started"]
    with pytest.raises(ValueError, match="loud"):
        logs.set_level("loud")


@given(st.text(alphabet=st.characters(), max_size=3000))
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = one_line(text)
    assert shown.isprintable()
    shown.encode()
    if text.isprintable() and len(text) <= TEXT_LENGTH_MAX:
        assert shown == text


@pytest.mark.parametrize("style", [Format.JSON, Format.CONSOLE])
@pytest.mark.parametrize(
    "hostile",
    [
        "a\nb",
        "a\r\nlevel=error",
        "\x1b[2J\x1b[31m",
        "\x9b31m",
        "\u2028",
        "\u202etxt.exe",
        "\ud800",
        "\x00",
        "x" * 1_000_000,
    ],
)
def test_hostile_text_neither_forges_a_line_nor_reaches_the_terminal(hostile: str, style: Format) -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream, style=style)
    logs.write(LogEvent.EVENT_DEAD_LETTERED, message=hostile, topic=hostile)
    with logs.installed():
        logging.getLogger("shop").warning("said %s", hostile)
    shown = stream.getvalue()
    assert shown.count("\n") == len(shown.splitlines()) == 2
    assert shown.replace("\n", "").isprintable()
    assert len(shown) < 4 * TEXT_LENGTH_MAX + 1000


def test_secrets_are_masked_wherever_they_come_from() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream, secrets=Secrets([CANARY, Secret(CANARY + "-long")]))
    logs.write(LogEvent.OUTAGE_BEGAN, message=f"login with {CANARY}-long failed")
    with logs.installed():
        logging.getLogger("aiohttp").error("password=%s", CANARY)
        try:
            raise RuntimeError(CANARY)
        except RuntimeError:
            logging.getLogger("shop").exception("refused")
    assert CANARY not in stream.getvalue()
    assert lines(stream)[0]["message"] == "login with *** failed"


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(CANARY)
    assert CANARY not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert secret.reveal() == CANARY
    assert secret == Secret(CANARY)
    assert Secrets(["abc"]).mask("abcdef") == "abcdef"  # too short: it would blot out words


def test_a_cut_text_does_not_show_half_a_secret() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream, secrets=Secrets([CANARY]))
    logs.write(LogEvent.OUTAGE_BEGAN, message="x" * (TEXT_LENGTH_MAX - 5) + CANARY)
    assert CANARY[:5] not in stream.getvalue()


def test_repeats_are_counted_and_told() -> None:
    stream, clock = io.StringIO(), Clock()
    logs = Logs(stream=stream, clock_s=clock)
    for _ in range(20):
        logs.write(LogEvent.EVENT_DEAD_LETTERED, kind="orders", topic="orders")
    logs.write(LogEvent.EVENT_DEAD_LETTERED, kind="refunds", topic="refunds")
    assert [line["topic"] for line in lines(stream)] == ["orders"] * LINES_MAX + ["refunds"]
    clock.now_s = WINDOW_S
    logs.write(LogEvent.RUN_RESUMED)
    told = lines(stream)[LINES_MAX + 1 :]
    assert [(line["event"], line.get("of"), line.get("repeated")) for line in told] == [
        ("log.repeated", "event.dead_lettered", 20 - LINES_MAX),
        ("run.resumed", None, None),
    ]


def test_what_was_left_out_is_told_at_the_end() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream)
    for _ in range(LINES_MAX + 2):
        logs.write(LogEvent.OUTPUT_RESENT, kind="t")
    logs.flush()
    logs.flush()
    assert [line.get("repeated") for line in lines(stream)] == [None] * LINES_MAX + [2]


def test_the_next_window_begins_with_the_count_of_the_last() -> None:
    repeats = Repeats(lines_max=1, window_s=10)
    assert [repeats.admit("k", now) for now in (0, 1, 2, 10, 11)] == [
        Pass(0),
        LeaveOut(),
        LeaveOut(),
        Pass(2),
        LeaveOut(),
    ]
    assert repeats.over(15) == []
    assert repeats.over(20) == [("k", 1)]
    assert repeats.over(20) == []


def test_kinds_without_end_take_bounded_memory() -> None:
    repeats = Repeats(kinds_max=10)
    for number in range(1000):
        assert isinstance(repeats.admit(number, 0), Pass)
    assert len(repeats._windows) == 10


def test_the_standard_librarys_loggers_come_the_same_way() -> None:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level, logging.getLogger("aiohttp").level
    logs = Logs(stream=stream, context=lambda: CONTEXT)
    with logs.installed():
        logging.getLogger("aiohttp.conn").info("connected")  # of libraries we hear warnings
        logging.getLogger("aiohttp.conn").warning("gone: %d", 7)
        logging.getLogger("shop").info("charged %s", "order-1")
        logging.getLogger("shop").debug("not wanted")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert (logging.getLogger().handlers[:], logging.getLogger().level, logging.getLogger("aiohttp").level) == before
    library, app, warning = lines(stream)
    assert (library["event"], library["level"], library["message"]) == ("library.logged", "warning", "gone: 7")
    assert "run_id" not in library
    assert (app["event"], app["logger"], app["message"], app["run_id"]) == (
        "app.logged",
        "shop",
        "charged order-1",
        "1.a",
    )
    assert "DeprecationWarning" in warning["message"]


CONTEXT: dict[str, Field] = {"run_id": "1.a", "attempt": 2}


def test_a_librarys_flood_is_limited_by_its_words_and_not_by_its_numbers() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream)
    with logs.installed():
        for number in range(1000):
            logging.getLogger("aiohttp").error("Unable to connect to node %d", number)
    assert len(lines(stream)) == LINES_MAX


def test_an_apps_context_cannot_overwrite_what_a_line_is() -> None:
    stream = io.StringIO()
    logs = Logs(
        stream=stream, context=lambda: {"message": "forged", "level": "debug", "event": "run.finished", "at": 0}
    )
    with logs.installed():
        logging.getLogger("shop").warning("true")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["message"]) == ("app.logged", "warning", "true")


def test_a_wrong_call_of_a_logger_is_still_a_line() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream)
    with logs.installed():
        logging.getLogger("shop").warning("%d apples", "many")
    assert "apples" in lines(stream)[0]["message"]


def test_an_exception_keeps_its_traceback_in_one_line() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream)
    try:
        raise RuntimeError("a\nforged line")
    except RuntimeError as error:
        logs.write(LogEvent.OBSERVER_FAILED, raised=error)
    (line,) = lines(stream)
    assert line["error"] == "RuntimeError"
    assert any("test_logs.py" in each for each in line["traceback"])


def test_a_closed_stderr_fails_nobody() -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream)
    stream.close()
    logs.write(LogEvent.RUN_PARKED)


@pytest.mark.parametrize(("level", "expected"), [(logging.INFO, 0), (logging.DEBUG, 1)])
def test_the_clients_own_lines_on_an_outage_are_for_debugging(level: int, expected: int) -> None:
    stream = io.StringIO()
    logs = Logs(stream=stream, style=Format.JSON, level=level)
    with logs.installed():
        logging.getLogger("aiokafka.conn").error("Unable connect to node %d", 1)
    assert len(lines(stream)) == expected
