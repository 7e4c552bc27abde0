"""Which resource limits, and by how much.

Pure. Each resource's use is measured by Little's law: the seconds of work that ended within a second are what was busy
on average. Whatever is used most limits first; when all slots of the process are taken, the limit is what holds the
runs there: a handler without a pool of its own, or the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

LIMITS_FROM: Final = 0.85
"""Used more than that, a resource makes its users wait for longer than they work (M/M/1: six times as long)."""
RELIEF_MAX: Final = 100.0
CPU: Final = "cpu"
BROKER: Final = "broker"
SLOTS: Final = "slots"
THREADS: Final = "threads"
KEYS: Final = "keys"
_SCALES: Final = ("pool:", "limit:", CPU, SLOTS, THREADS)


class Use(msgspec.Struct, frozen=True):
    """A resource and how much of it is used, 0 to 1."""

    resource: str
    ratio: float

    @property
    def scales(self) -> bool:
        """Whether another worker brings more of it."""
        return self.resource.startswith(_SCALES)


class Bottleneck(msgspec.Struct, frozen=True, kw_only=True):
    """What limits now. Without it `relief` times as much would pass, until `next` limits ("": nothing in sight)."""

    resource: str
    relief: float
    next: str = ""


def bottleneck(
    uses: Iterable[Use], held: Mapping[str, float], stuck: Mapping[str, str], *, odd: str = ""
) -> Bottleneck | None:
    """The resource that limits; None while nothing does.

    `held`: what keeps runs in their slots, on average how many. `stuck`: resources that one handler keeps without ever
    ending. `odd`: what else makes starts wait, if no use explains it (a hot partition, keys).
    """
    ranked = sorted(uses, key=lambda use: use.ratio, reverse=True)
    top = ranked[0] if ranked else Use("", 0.0)
    if top.ratio < LIMITS_FROM:
        return None if not odd else Bottleneck(resource=odd, relief=_relief(1.0, top.ratio), next=top.resource)
    name = stuck.get(top.resource, top.resource)
    if name == SLOTS and any(held.values()):
        name = max(held, key=lambda each: held[each])
    others = [use for use in ranked[1:] if use.resource not in {name, SLOTS}]
    following = others[0] if others else Use("", 0.0)
    return Bottleneck(resource=name, relief=_relief(top.ratio, following.ratio), next=following.resource)


def _relief(used: float, following: float) -> float:
    return min(RELIEF_MAX, used / following) if following > 0 else RELIEF_MAX
