"""Placement: who gets which partition. Pure; the same question has the same answer on every machine and every Python.

Rendezvous hashing says which members suit a partition best; a load cap says how many one may have: the whole divided by the members, rounded up, and no more
members than needed at that. Of each topic (the run log; each source) everybody gets a share. What somebody holds stays there unless it is above the
share, so a change moves no more than it must. While members differ in their definitions, as during a deploy, what is free goes to those with the newest, up to
two shares: a run of a version that its owner does not have is held. Nothing is taken away for that. Called by the assignor of a group's leader.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from headrace.topics.log import TopicPartition
from headrace.topics.version_order import version_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_SHARES_MAX = 2  # of a member with the newest definitions, while others have older ones


class Candidate(msgspec.Struct, frozen=True):
    """A member as it asks. `topics` it reads; `held` is what it was given in `generation`, which is older than others' if the group had given it up.

    `definitions` is the newest version that it has of each workflow.
    """

    name: str
    topics: frozenset[str]
    held: frozenset[TopicPartition] = frozenset()
    generation: int = -1
    retiring: bool = False
    definitions: Mapping[str, str] = {}


def place(partitions: Mapping[str, int], candidates: Sequence[Candidate]) -> dict[str, frozenset[TopicPartition]]:
    """For each candidate what it gets. `partitions`: how many each topic has. A topic that no candidate reads is nobody's."""
    placed: dict[str, set[TopicPartition]] = {candidate.name: set() for candidate in candidates}
    preferred = newest([each for each in candidates if not each.retiring])
    for topic in sorted(partitions):
        takers = sorted(
            (each for each in candidates if topic in each.topics and not each.retiring), key=lambda each: each.name
        )
        if takers and partitions[topic]:
            every = [TopicPartition(topic, number) for number in range(partitions[topic])]
            _place_topic(every, takers, placed, preferred)
    return {name: frozenset(given) for name, given in placed.items()}


def newest(candidates: Sequence[Candidate]) -> frozenset[str]:
    """Those that have the newest version of every workflow that any of them has. Nobody, if that is true of all or of none."""
    versions: dict[str, tuple[object, ...]] = {}
    for candidate in candidates:
        for workflow, version in candidate.definitions.items():
            order = version_order(version)
            versions[workflow] = max(versions.get(workflow, order), order)
    found = frozenset(
        candidate.name
        for candidate in candidates
        if {workflow: version_order(version) for workflow, version in candidate.definitions.items()} == versions
    )
    return found if len(found) < len(candidates) else frozenset()


def _place_topic(
    partitions: Sequence[TopicPartition],
    takers: Sequence[Candidate],
    placed: Mapping[str, set[TopicPartition]],
    preferred: frozenset[str],
) -> None:
    kept = _kept(partitions, takers)
    if all(taker.name in preferred for taker in takers):
        preferred = frozenset()
    shares = _shares(partitions[0].topic, len(partitions), takers, kept, placed, preferred)
    two = _SHARES_MAX * -(-len(partitions) // len(takers))
    most = {name: two if name in preferred else share for name, share in shares.items()}
    room: dict[str, int] = {}
    free = set(partitions)
    for taker in takers:
        mine = sorted(kept[taker.name], key=lambda at: _score(taker.name, at), reverse=True)[: most[taker.name]]
        placed[taker.name].update(mine)
        free.difference_update(mine)
        room[taker.name] = most[taker.name] - len(mine)

    def suits(name: str, at: TopicPartition) -> tuple[bool, int, int]:
        above = most[name] - room[name] - shares[name]  # what it has beyond its share
        return name in preferred, min(0, -1 - above), _score(name, at)

    for at in sorted(free):
        best = max((name for name, left in room.items() if left), key=lambda name: suits(name, at))
        placed[best].add(at)
        room[best] -= 1


def _kept(partitions: Sequence[TopicPartition], takers: Sequence[Candidate]) -> dict[str, list[TopicPartition]]:
    """Who holds what. Where two say so, the newer generation does."""
    kept: dict[str, list[TopicPartition]] = {taker.name: [] for taker in takers}
    for at in partitions:
        holders = [taker for taker in takers if at in taker.held]
        if holders:
            holder = max(holders, key=lambda each: (each.generation, _score(each.name, at)))
            kept[holder.name].append(at)
    return kept


def _shares(
    topic: str,
    count: int,
    takers: Sequence[Candidate],
    kept: Mapping[str, list[TopicPartition]],
    placed: Mapping[str, set[TopicPartition]],
    preferred: frozenset[str],
) -> dict[str, int]:
    """How many each may have: equal, and the odd ones go to those who hold most of this topic, then to those who have least of the others.

    Those with the newest definitions come last here: they may have more than their share.
    """
    share, odd = divmod(count, len(takers))
    order = sorted(
        takers,
        key=lambda each: (
            each.name in preferred,
            -len(kept[each.name]),
            len(placed[each.name]),
            _digest(f"{each.name}\0{topic}"),
        ),
    )
    return {taker.name: share + (1 if rank < odd else 0) for rank, taker in enumerate(order)}


def _score(member: str, at: TopicPartition) -> int:
    return _digest(f"{member}\0{at.topic}\0{at.partition}")


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
