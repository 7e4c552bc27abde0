"""Why a request about something that runs cannot be answered as its sender hopes. The command line and the API raise the same."""

from __future__ import annotations

from headrace.topics.errors import HeadraceError


class NotFound(HeadraceError):
    """What was named is not there."""

    code = "HR1102"


class Conflict(HeadraceError):
    """It is there, but in a state that does not allow this."""

    code = "HR1103"


class NotAllowed(HeadraceError):
    """It is there, and whoever asks may not do this."""

    code = "HR1106"


class TimedOut(HeadraceError):
    """What was awaited did not happen in time. It may still happen."""

    code = "HR1104"
