# pyright: reportMissingTypeStubs=false
"""Our one assignor: what members of the group write into their JoinGroup, and what the leader answers to each.

The frame is Kafka's consumer protocol, so that every tool shows who has what. What is ours lies in its user data, as JSON.
Pure; called by `membership_kafka.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from headrace.topics.log import TopicPartition
from headrace.topics.placement import Candidate, place

PROTOCOL_TYPE = "consumer"
NAME = "headrace"
_VERSION = 0  # of the consumer protocol's frame: the one without fields that we do not use


class _Wish(msgspec.Struct, frozen=True, omit_defaults=True):
    held: dict[str, tuple[int, ...]] = {}
    generation: int = -1
    retiring: bool = False
    definitions: dict[str, str] = {}


class _Group(msgspec.Struct, frozen=True):
    members: tuple[str, ...] = ()
    retiring: tuple[str, ...] = ()


class Assigned(msgspec.Struct, frozen=True):
    """What a member gets, and who was in the group."""

    partitions: frozenset[TopicPartition]
    members: tuple[str, ...]
    retiring: tuple[str, ...]


def wish(
    topics: Sequence[str],
    held: frozenset[TopicPartition],
    generation: int,
    *,
    retiring: bool,
    definitions: Mapping[str, str],
) -> bytes:
    """What a member says of itself when it joins."""
    ours = _Wish(_by_topic(held), generation, retiring, dict(definitions))
    metadata: Any = ConsumerProtocolMemberMetadata
    return metadata(_VERSION, sorted(topics), msgspec.json.encode(ours)).encode()


def candidate(name: str, metadata: bytes) -> Candidate:
    """What a member said. User data that cannot be read count as none: it holds nothing."""
    found = ConsumerProtocolMemberMetadata.decode(metadata)
    try:
        ours = msgspec.json.decode(found.user_data or b"{}", type=_Wish)
    except msgspec.DecodeError:
        ours = _Wish()
    held = frozenset(TopicPartition(topic, number) for topic, numbers in ours.held.items() for number in numbers)
    topics = frozenset(found.subscription)
    return Candidate(name, topics, held, ours.generation, ours.retiring, ours.definitions)


def assign(candidates: Sequence[Candidate], partitions: Mapping[str, int]) -> list[tuple[str, bytes]]:
    """The leader's answer to each member."""
    placed = place(partitions, candidates)
    retiring = tuple(sorted(each.name for each in candidates if each.retiring))
    group = msgspec.json.encode(_Group(tuple(sorted(placed)), retiring))
    assignment: Any = ConsumerProtocolMemberAssignment
    return [
        (name, assignment(_VERSION, [(t, list(n)) for t, n in _by_topic(given).items()], group).encode())
        for name, given in placed.items()
    ]


def assigned(answer: bytes) -> Assigned:
    """What the leader answered us. An empty answer (a leader that left us out) is nothing."""
    if not answer:
        return Assigned(frozenset(), (), ())
    found = ConsumerProtocolMemberAssignment.decode(answer)
    try:
        group = msgspec.json.decode(found.user_data or b"{}", type=_Group)
    except msgspec.DecodeError:
        group = _Group()
    given = frozenset(TopicPartition(topic, number) for topic, numbers in found.assignment for number in numbers)
    return Assigned(given, group.members, group.retiring)


def _by_topic(at: frozenset[TopicPartition]) -> dict[str, tuple[int, ...]]:
    topics: dict[str, list[int]] = {}
    for topic, number in sorted(at):
        topics.setdefault(topic, []).append(number)
    return {topic: tuple(numbers) for topic, numbers in topics.items()}
