"""`Logs`.

Lines on stderr, as JSON or, on a terminal, as coloured key and value. One object per process, no global configuration
of structlog.

Every line goes one way: limited (`repeats.py`), cleaned and masked (`log_text.py`), rendered, written. The standard
library's loggers are led the same way while `installed()` is open. What a line may say is in `log_event.py`; payloads
are never among it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final, TextIO

import msgspec
import structlog

from headrace.observability.log_event import MEANINGS, LogEvent
from headrace.observability.log_text import Secrets, one_line
from headrace.observability.repeats import LeaveOut, Repeats

Field = str | int | float | bool | None

TRACEBACK_LINES_MAX: Final = 40
LIBRARIES: Final = ("aiohttp", "aiokafka", "anyio", "asyncio", "opentelemetry", "py.warnings", "sqlalchemy", "urllib3")
"""Loggers by first name that are not the app's; they are heard from WARNING on."""

TOLD_OTHERWISE: Final = "aiokafka"
"""Its loggers tell each failed try of a connection; our `outage.began` and `outage.ended` say it once. Seen at DEBUG."""

_RESERVED: Final = frozenset({"timestamp", "level", "event", "exc_info", "stack_info"})


class Format(StrEnum):
    """How lines look. `auto`: console on a terminal, JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class Logs:
    """The way to stderr.

    `context` adds fields (run, task, trace ids) to lines of handlers' own code, from wherever it runs; `process` to all.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        style: Format = Format.AUTO,
        level: int = logging.INFO,
        secrets: Secrets | None = None,
        context: Callable[[], Mapping[str, Field]] | None = None,
        process: Mapping[str, Field] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        out = sys.stderr if stream is None else stream
        terminal = out.isatty()
        self.secrets = Secrets() if secrets is None else secrets
        self._level = level
        self._context = context
        self._process = dict(process or {})
        self._clock_s = clock_s
        self._repeats = Repeats()
        self._json = style is Format.JSON or (style is Format.AUTO and not terminal)
        colours = terminal and not os.environ.get("NO_COLOR")
        renderer: Any = (
            structlog.processors.JSONRenderer(serializer=_json)
            if self._json
            else structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=22, sort_keys=False)
        )
        self._logger: Any = structlog.wrap_logger(
            structlog.WriteLogger(out),
            processors=[structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"), _in_order, renderer],
            wrapper_class=structlog.BoundLogger,
        )

    @property
    def level(self) -> int:
        """Lines below this number of `logging` are not written."""
        return self._level

    def set_level(self, level: int | str) -> None:
        """Change it while running. Raises ValueError for a name that `logging` does not know."""
        if isinstance(level, str):
            named = logging.getLevelNamesMapping().get(level.upper())
            if named is None:
                raise ValueError(f"Unknown log level {level!r}: use debug, info, warning or error.")
            level = named
        self._level = level

    def enabled(self, level: int) -> bool:
        """Would a line of this level be written? Ask before collecting its fields."""
        return level >= self._level

    def write(
        self,
        event: LogEvent,
        *,
        at: int | None = None,
        kind: Hashable = None,
        raised: BaseException | None = None,
        **fields: Field,
    ) -> None:
        """Write a line.

        `at` overrides the usual level; lines of one `kind` (with the event) are limited; empty fields are left out.
        """
        self._write(event, fields, at=at, kind=kind, raised=raised)

    def _write(
        self,
        event: LogEvent,
        fields: Mapping[str, Field],
        *,
        at: int | None,
        kind: Hashable,
        raised: BaseException | None,
    ) -> None:
        level = MEANINGS[event].level if at is None else at
        if level < self._level:
            return
        now_s = self._clock_s()
        self._tell_left_out(now_s)
        repeated = 0
        if kind is not None:
            verdict = self._repeats.admit((event, kind), now_s)
            if isinstance(verdict, LeaveOut):
                return
            repeated = verdict.repeated
        shown: dict[str, Any] = {name: value for name, value in fields.items() if value is not None and value != ""}
        if raised is not None:
            shown.update(self._of(raised))
        if repeated:
            shown["repeated"] = repeated
        self._emit(event, level, shown)

    def flush(self) -> None:
        """Tell what was left out so far, whatever its window: before the end."""
        self._tell_left_out(float("inf"))

    @contextmanager
    def installed(self) -> Generator[None]:
        """Lead the standard library's loggers here while open; what they had before comes back."""
        root, bridge = logging.getLogger(), _Bridge(self)
        before = root.handlers[:], root.level
        levels = {name: logging.getLogger(name).level for name in LIBRARIES}
        root.handlers[:] = [bridge]
        root.setLevel(logging.DEBUG)
        for name in LIBRARIES:
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.captureWarnings(capture=True)
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)
            root.handlers[:], level = before
            root.setLevel(level)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)

    def forward(self, record: logging.LogRecord) -> None:
        """A line of a library or of the app's own code."""
        if record.levelno < self._level:
            return
        library = record.name.partition(".")[0] in LIBRARIES or record.name in LIBRARIES
        if record.name.startswith(TOLD_OTHERWISE) and self._level > logging.DEBUG:
            return
        context = {} if library or self._context is None else dict(self._context())
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - wrong arguments of a stranger's call
            message = f"{record.msg!r} ({type(error).__name__} while formatting)"
        self._write(
            LogEvent.LIBRARY_LOGGED if library else LogEvent.APP_LOGGED,
            {**context, "logger": record.name, "message": message},
            at=record.levelno,
            # An app may log the same words for every run; only its errors are limited.
            kind=(record.name, record.msg) if library or record.levelno >= logging.ERROR else None,
            raised=record.exc_info[1] if record.exc_info else None,
        )

    def _tell_left_out(self, now_s: float) -> None:
        for kind, repeated in self._repeats.over(now_s):
            of = str(kind[0]) if isinstance(kind, tuple) else str(kind)  # pyright: ignore[reportUnknownArgumentType]
            if self.enabled(logging.INFO):
                self._emit(LogEvent.LOG_REPEATED, logging.INFO, {"of": of, "repeated": repeated})

    def _of(self, error: BaseException) -> dict[str, Any]:
        lines = "".join(traceback.format_exception(error)).splitlines()
        lines = [self._clean(line) for line in lines[-TRACEBACK_LINES_MAX:]]
        told: dict[str, Any] = {"error": type(error).__name__}
        # As a list a traceback stays one JSON line; on a terminal the cleaned lines follow the line.
        told.update({"traceback": lines} if self._json else {"exception": "\n".join(lines)})
        return told

    def _emit(self, event: LogEvent, level: int, fields: dict[str, Any]) -> None:
        shown = {
            name: self._clean(value) if isinstance(value, str) and name != "exception" else value
            for name, value in (fields | self._process).items()
            if name not in _RESERVED
        }
        try:
            self._logger.msg(str(event), level=logging.getLevelName(level).lower(), **shown)
        except (OSError, ValueError):
            return  # stderr is closed or full: nobody can be told, and no run may fail for it

    def _clean(self, text: str) -> str:
        return one_line(self.secrets.mask(str(text)))


class _Bridge(logging.Handler):
    """The standard library's way here."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        self._logs.forward(record)


def _json(fields: dict[str, Any], **_: object) -> str:
    return msgspec.json.encode(fields, enc_hook=str).decode()


def _in_order(_logger: object, _method: str, fields: Any) -> Any:
    """Time, level and event first: people read from the left."""
    return {name: fields[name] for name in ("timestamp", "level", "event")} | fields
