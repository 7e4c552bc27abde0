"""Exit codes, and which error ends with which. Scripts depend on them: they never change."""

from __future__ import annotations

from enum import IntEnum

from headrace.service.request_error import Conflict, NotAllowed, NotFound, TimedOut
from headrace.topics.errors import DefinitionError, HeadraceError, SettingsError
from headrace.topics.log import AppendForbidden, LogOwned, LogUnavailable, TopicForbidden, TopicMissing, TopicRefused
from headrace.topics.membership import GroupForbidden, GroupTaken, MembershipRefused


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    NOT_ALLOWED = 5
    UNREACHABLE = 6
    INVALID = 7
    NOT_SUCCEEDED = 8
    TIMED_OUT = 124
    INTERRUPTED = 130


class Usage(HeadraceError):
    """The command line itself is wrong."""

    code = "HR1101"


def exit_code_of(error: HeadraceError) -> ExitCode:
    """The exit code that an error means for a script."""
    match error:
        case Usage():
            return ExitCode.USAGE
        case NotFound() | TopicMissing():
            return ExitCode.NOT_FOUND
        case Conflict() | LogOwned() | GroupTaken():
            return ExitCode.CONFLICT
        case NotAllowed() | AppendForbidden() | TopicForbidden() | GroupForbidden():
            return ExitCode.NOT_ALLOWED
        case LogUnavailable():
            return ExitCode.UNREACHABLE
        case SettingsError() | DefinitionError() | TopicRefused() | MembershipRefused():
            return ExitCode.INVALID
        case TimedOut():
            return ExitCode.TIMED_OUT
        case _:
            return ExitCode.ERROR
