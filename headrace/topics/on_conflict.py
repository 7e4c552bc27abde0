"""`OnConflict`: the policies about runs of one key."""

from __future__ import annotations

from enum import StrEnum


class OnConflict(StrEnum):
    """What a start does when its key already has an open run of the same workflow."""

    ALLOW = "allow"
    REJECT = "reject"
    JOIN = "join"
    QUEUE = "queue"
