"""Limits of one run. Crossing one fails the step that does, and with it the run, unless the workflow catches it."""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace.topics.errors import HeadraceError

STEPS_MAX: Final = 50_000
"""Steps of a run (`limits.tasks_per_run`): each has a place in its history, which replays read."""

FAN_OUT_MAX: Final = 10_000
"""Members of one gather, race or map (`limits.fan_out`)."""

DEPTH_MAX: Final = 100
"""Branches inside each other: a reference has a part for each, and is in every record of its step."""

CHILD_DEPTH_MAX: Final = 64
"""Runs that wait for each other, each the awaited child of the one before: a workflow that calls itself without end stops here."""

TEXT_MAX: Final = 8_192
"""Characters of an event's type, key or subject: they are headers and keys of Kafka records."""


class RunLimits(NamedTuple):
    """The limits that settings may change. `payload_bytes`: of an argument list, an event's data and the result; None is no limit."""

    steps: int = STEPS_MAX
    fan_out: int = FAN_OUT_MAX
    payload_bytes: int | None = None


class LimitExceeded(HeadraceError):
    """A run asked for more than a limit allows."""

    code = "HR4010"


def too_many_steps(most: int) -> LimitExceeded:
    return LimitExceeded(f"The run has made {most} steps (limits.tasks_per_run).", code="HR4011")


def check_fan_out(count: int, most: int) -> None:
    """LimitExceeded if a group may not have so many members."""
    if count > most:
        message = f"{count} branches at once are more than {most} (limits.fan_out)."
        raise LimitExceeded(message, code="HR4012")


def check_depth(depth: int) -> None:
    """LimitExceeded if branches are too deep inside each other."""
    if depth > DEPTH_MAX:
        raise LimitExceeded(f"Branches are more than {DEPTH_MAX} deep inside each other.")


def check_child_depth(depth: int) -> None:
    """LimitExceeded if a run that so many others wait for may not call a child."""
    if depth >= CHILD_DEPTH_MAX:
        message = f"Child runs are more than {CHILD_DEPTH_MAX} deep inside each other."
        raise LimitExceeded(message, code="HR4014")
