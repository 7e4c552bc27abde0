"""One command line, start to end: find the command, run it, turn what goes wrong into a message and an exit code.

Commands are known by name and loaded when called, so that `--help` stays fast. A command is a plain or `async`
function that prints its answer and returns nothing or an `ExitCode`; what a user can mend it raises as a
`HeadraceError`.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from cyclopts import App, CycloptsError

from headrace.service.cli.exit_code import ExitCode, exit_code_of
from headrace.service.cli.output import is_utf8
from headrace.topics.error_group import leaves
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HELP = "Durable workflows on Kafka: events in, coroutines that survive a crash, results out."
EPILOGUE = "Settings: flag > HEADRACE_SECTION__KEY > headrace.toml > default. Every command has --help."

_HERE = "headrace.service.cli"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

TOP = (
    ("dev", "serve:dev", "Run an app on the embedded log, without a broker."),
    ("serve", "serve:serve", "Run an app on Kafka."),
    ("demo", "serve:demo", "Run the orders example with 200 orders, then show what happened."),
    ("init", "init:init", "Write a small app to start from."),
    ("doctor", "doctor:doctor", "Look for what is wrong, and say how to fix it."),
    ("top", "top:top", "Watch workflows, tasks, lag, breakers and what limits."),
    ("version", "version:show", "Print the versions of Headrace and its libraries."),
)
GROUPS = (
    (
        "event",
        "Source records: publish, look, and ask which triggers match.",
        (
            ("publish", "event:publish", "Publish events to a topic."),
            ("tail", "event_tail:tail", "Print a topic's events as they come."),
            ("match", "event_match:match", "Say which triggers match, and which clause said no. Nothing is written."),
        ),
    ),
    (
        "run",
        "Runs: find, follow, cancel.",
        (
            ("list", "run:list_", "List runs, newest first."),
            ("count", "run:count", "Count runs by workflow and status."),
            ("get", "run:get", "Show one run."),
            ("history", "run:history", "Print every record of a run."),
            ("watch", "run_command:watch", "Follow a run until it ends: exit code 0 if it succeeded, else 8."),
            ("cancel", "run_command:cancel", "End a run; finished tasks are undone."),
            ("resume", "run_command:resume", "Bring a parked run back."),
            ("retry", "run_retry:retry", "Begin a new run in place of a failed one, with its finished tasks' results."),
            ("dismiss", "run_retry:dismiss", "Say that nobody will retry a failed run."),
        ),
    ),
    (
        "approval",
        "Approvals: what runs ask people.",
        (
            ("list", "approval:list_", "List approvals that wait for a decision."),
            ("get", "approval:get", "Show one approval."),
            ("approve", "approval:approve", "Say yes."),
            ("reject", "approval:reject", "Say no."),
        ),
    ),
    (
        "dlq",
        "Dead letters: look at them, send them again, put them aside.",
        (
            ("list", "dlq:list_", "List dead letters, the newest first."),
            ("get", "dlq:get", "Show one dead letter with its original."),
            ("redrive", "dlq_command:redrive", "Send dead letters to their topics again."),
            ("resolve", "dlq_command:resolve", "Say that dead letters need nothing more; they are deleted."),
            ("stats", "dlq:stats", "Count dead letters by topic, stage, code and workflow."),
        ),
    ),
    (
        "workflow",
        "Workflows.",
        (
            ("list", "workflow:list_", "List the workflows of an app, or those seen in the run log."),
            ("get", "workflow:get", "Show one workflow."),
        ),
    ),
    (
        "schedule",
        "Schedules: what starts runs by the clock.",
        (
            ("list", "schedule:list_", "List schedules with their last and next slots."),
            ("next", "schedule:next_", "Show the slots that come next."),
            ("trigger", "schedule:trigger", "Start a run now, as if this were a slot."),
            ("pause", "schedule:pause", "Start no more runs of a schedule."),
            ("resume", "schedule:resume", "Let a paused schedule go on with its next slot."),
        ),
    ),
    (
        "topic",
        "Topics.",
        (
            ("list", "topic:list_", "List topics."),
            ("lag", "topic:lag", "Show how far behind the routers are."),
            ("create", "topic:create", "Make the topics that an app needs."),
            ("check", "topic:check", "Compare topics with what they must be like."),
            ("rewind", "topic_rewind:rewind", "Read a source topic anew, from somewhere on: a new replay epoch."),
        ),
    ),
    (
        "config",
        "Settings.",
        (
            ("show", "config:show_", "Show all settings; with --sources where each came from."),
            ("path", "config:path", "Print the settings file that is read."),
        ),
    ),
    (
        "spec",
        "Descriptions for tools.",
        (("openapi", "spec:openapi", "Print the OpenAPI document of the HTTP API."),),
    ),
)


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code. Never raises for what a user did."""
    _say_what_can_be_said()
    try:
        code = _answered(list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has what it wanted
        _close_stdout()
        return ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except OSError as error:  # of the flush
        return _unwritten(error)
    return code


def names() -> Iterator[tuple[str, ...]]:
    """Every command as its words, for tests and documentation."""
    yield from ((name,) for name, _, _ in TOP)
    yield from ((group, name) for group, _, commands in GROUPS for name, _, _ in commands)


def _answered(arguments: list[str]) -> int:
    try:
        code = _app()(arguments, exit_on_error=False, print_error=False, result_action="return_value", verbose=False)
    except CycloptsError as error:
        _say(_usage(error))
        return ExitCode.USAGE
    except HeadraceError as error:
        _say(error.report())
        return exit_code_of(error)
    except BaseExceptionGroup as group:
        return _one_of(group, arguments)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except SystemExit as error:  # cyclopts, after --help
        return error.code if isinstance(error.code, int) else ExitCode.OK
    except OSError as error:
        if error.filename is None and error.errno in _DISK_FULL:
            return _unwritten(error)
        return _bug(error, arguments)
    except Exception as error:  # noqa: BLE001 - the last resort before the user
        return _bug(error, arguments)
    return code if isinstance(code, int) else ExitCode.OK


def _app() -> App:
    terminal = sys.stdout.isatty()
    app = App(
        name="headrace",
        help=HELP,
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        help_formatter="default" if terminal and "NO_COLOR" not in os.environ else "plain",
        version_flags=(),
    )
    for name, target, text in TOP:
        app.command(f"{_HERE}.{target}", name=name, help=text)
    for group, help_, commands in GROUPS:
        section = App(name=group, help=help_, version_flags=())
        for name, target, text in commands:
            section.command(f"{_HERE}.{target}", name=name, help=text)
        app.command(section)
    return app


def _usage(error: CycloptsError) -> str:
    words = " ".join(("headrace", *(error.command_chain or ()), "--help"))
    return f"HR1101  {str(error).strip()}\nDo      See `{words}`."


def _one_of(group: BaseExceptionGroup[BaseException], arguments: list[str]) -> int:
    """Task groups wrap: the first error that is ours speaks, else it is a bug."""
    ours, others = group.split(HeadraceError)
    if others is None and ours is not None:
        error = next(leaves(ours))
        if isinstance(error, HeadraceError):
            _say(error.report())
            return exit_code_of(error)
    if all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(group)):
        raise KeyboardInterrupt
    if all(isinstance(leaf, BrokenPipeError) for leaf in leaves(group)):
        raise BrokenPipeError
    return _bug(group, arguments)


def _bug(error: BaseException, arguments: list[str]) -> int:
    """Something we did not foresee: one line, and the traceback where it disturbs nobody."""
    text = "".join(traceback.format_exception(error))
    if "--debug" in arguments:
        _say(text.rstrip())
        where = "Report it with the lines above."
    else:
        where = "Report it with its traceback; --debug prints that."
        with suppress(OSError):
            handle, path = tempfile.mkstemp(prefix="headrace-", suffix=".traceback")
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            where = f"Report it with {path}."
    _say(f"HR9001  This is a bug in Headrace: {type(error).__name__}: {_first_line(error)}\nDo      {where}")
    return ExitCode.ERROR


def _unwritten(error: OSError) -> int:
    """What we had to say does not fit where stdout goes."""
    _close_stdout()
    _say(
        f"HR1105  The answer cannot be written: {error.strerror}.\n"
        "Do      Make room where the output goes, or send it elsewhere."
    )
    return ExitCode.ERROR


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _say(text: str) -> None:
    with suppress(OSError):  # nobody listens on stderr: the exit code still speaks
        print(text, file=sys.stderr, flush=True)


def _say_what_can_be_said() -> None:
    """In a locale such as C a character that cannot be written is shown by its number; it must not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if not is_utf8(stream) and isinstance(stream, io.TextIOWrapper):
            cast("io.TextIOWrapper[Any]", stream).reconfigure(errors="backslashreplace")


def _close_stdout() -> None:
    """Python flushes stdout once more at exit; into the closed pipe that would be a message."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
