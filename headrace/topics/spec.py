"""`TopicSpec`: what a topic must be like. Used by `topic create`, `topic check` and the check at start."""

from __future__ import annotations

import re

import msgspec

from headrace.topics.log import TopicRefused

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_NUMBERS_MAX = 100_000  # partitions of one topic; far above what a Kafka cluster carries


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A topic's shape. -1 for a retention means "for ever"; `None` means "the broker's default, not checked"."""

    name: str
    partitions: int
    replication: int = 1
    cleanup_policy: str | None = None  # "delete" or "compact"
    retention_ms: int | None = None
    retention_bytes: int | None = None
    max_message_bytes: int | None = None
    min_insync_replicas: int | None = None
    timestamp_type: str | None = None  # "LogAppendTime" or "CreateTime"
    segment_bytes: int | None = None
    unclean_leader_election: bool | None = None


def is_topic_name(name: str) -> bool:
    """Whether Kafka allows the name: 1 to 249 of `a-z A-Z 0-9 . _ -`, but not `.` and `..`."""
    return _NAME.fullmatch(name) is not None and name not in {".", ".."}


def check_creatable(spec: TopicSpec, nodes: int) -> None:
    """Raise `TopicRefused` if no cluster of `nodes` brokers could make the topic."""
    if not is_topic_name(spec.name):
        raise TopicRefused(
            f"{spec.name!r} is not a topic name.",
            do="Use 1 to 249 of the letters a-z and A-Z, digits, dot, underscore and hyphen.",
        )
    if not 1 <= spec.partitions <= _NUMBERS_MAX:
        raise TopicRefused(f"{spec.name} cannot have {spec.partitions} partitions.", do=f"Use 1 to {_NUMBERS_MAX}.")
    if not 1 <= spec.replication <= nodes:
        raise TopicRefused(
            f"{spec.name} cannot have {spec.replication} replicas: brokers there are {nodes}.",
            do=f"Set log.replication to {nodes} or less, or leave it out.",
        )
