"""The options that every command has, and what they say together: settings and an output format.

`Common` is flattened into each command's options (`common: Common | None = None`). Annotations are read at run time
by cyclopts.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headrace.service.cli.exit_code import ExitCode, Usage
from headrace.service.cli.output import Format
from headrace.service.settings import Backend
from headrace.service.settings_quantity import duration_ms
from headrace.service.settings_source import Loaded, load
from headrace.topics.errors import Fatal

Timeout = Annotated[
    str | None, Parameter(name="--timeout", help="Give up after this time, such as 30s: exit code 124.")
]

_SHORT = (
    ("bootstrap_servers", "kafka.bootstrap_servers"),
    ("app_name", "app.name"),
    ("log_path", "log.path"),
    ("metrics_port", "telemetry.metrics_port"),
    ("api_port", "api.port"),
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command; the short ones stand for settings."""

    config: Annotated[Path | None, Parameter(help="Settings file; else ./headrace.toml.")] = None
    set: Annotated[
        tuple[str, ...],
        Parameter(name="--set", help="A setting, as section.key=value; repeatable.", negative="", show_default=False),
    ] = ()
    bootstrap_servers: Annotated[str | None, Parameter(help="Kafka, as host:port,...")] = None
    app_name: Annotated[str | None, Parameter(help="Prefix of internal topics and groups.")] = None
    log_path: Annotated[str | None, Parameter(help="The embedded log's file.")] = None
    metrics_port: Annotated[str | None, Parameter(help="Port of metrics and health.")] = None
    api_port: Annotated[str | None, Parameter(help="Port of the HTTP API and console.")] = None
    output: Annotated[Format, Parameter(name=("--output", "-o"), help="How to print.")] = Format.TABLE
    debug: Annotated[bool, Parameter(help="Print tracebacks of bugs.", negative="")] = False

    def load(self, backend: Backend | None = None) -> Loaded:
        """All settings.

        `backend` is what the command defaults to; None: Kafka if bootstrap servers are set, else embedded. Notes go
        to stderr.
        """
        loaded = load(flags=self._flags(), environ=os.environ, file=self.config, backend=backend)
        for note in loaded.notes:
            warn(f"Note    {note}")
        return loaded

    def _flags(self) -> list[tuple[str, str]]:
        flags: list[tuple[str, str]] = []
        for text in self.set:
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise Usage(f"--set {text} has no value.", do="Write --set section.key=value.")
            flags.append((key.strip(), value))
        for name, key in _SHORT:
            value = getattr(self, name)
            if value is not None:
                flags.append((key, value))
        return flags


def options(common: Common | None) -> Common:
    """The options as given, or all defaults."""
    return common or Common()


def seconds(text: str | None, option: str) -> float | None:
    """The seconds of a duration option such as `--timeout 30s`; None stays None."""
    if text is None:
        return None
    try:
        return duration_ms(text) / 1000
    except ValueError as error:
        raise Usage(f"{option}: {error}.", do=f"Write {option} 30s, say.") from None


def checked_limit(limit: int) -> int:
    """The number of `--limit`; 0 means all."""
    if limit < 0:
        raise Usage(f"--limit {limit} is negative.", do="Use 0 for all.")
    return limit


def incomplete(problems: Sequence[Fatal]) -> ExitCode:
    """Say what kept partitions from being read. The exit code of an answer that lacks them."""
    for problem in problems:
        warn(f"{problem.report()}\nNote    What follows is incomplete.")
    return ExitCode.ERROR if problems else ExitCode.OK


def warn(text: str) -> None:
    """Say something beside the answer: stdout is for data. Where nobody reads any more, nobody can be told, and nothing may fail for it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return
