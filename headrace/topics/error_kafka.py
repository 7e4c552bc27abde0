# pyright: reportMissingTypeStubs=false
"""What Kafka's error codes mean for an append: again, refused for good, or uncertain."""

from __future__ import annotations

from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.errors import KafkaError

UNKNOWN_TOPIC = kafka_errors.UnknownTopicOrPartitionError.errno
CORRUPT_MESSAGE = 2  # damaged on its way: sent again

_REFUSED = frozenset(
    {
        10,  # message too large
        17,  # invalid topic
        18,  # record list too large
        21,  # invalid required acks
        29,  # topic authorization failed
        31,  # cluster authorization failed
        32,  # invalid timestamp
        43,  # unsupported for message format
        44,  # policy violation
        76,  # unsupported compression type
        87,  # invalid record
    }
)
_FORBIDDEN = frozenset({29, 31})
_UNCERTAIN = frozenset({-1, 7, 20, 46})  # unknown, timed out, too few replicas after the append, duplicate sequence


def is_refusal(code: int) -> bool:
    """The broker will never take this batch, and did not."""
    return code in _REFUSED


def is_forbidden(code: int) -> bool:
    """We are not allowed to."""
    return code in _FORBIDDEN


def is_uncertain(code: int) -> bool:
    """The broker may have appended: it ran out of time, or of replicas after the append, or says that it has the batch."""
    return code in _UNCERTAIN


def is_retriable(code: int) -> bool:
    """The broker did not append now; the same batch may go again. The rest is fatal for its producer."""
    return code == CORRUPT_MESSAGE or bool(_error(code).retriable)


def words(code: int) -> str:
    """The error's name and Kafka's description."""
    error = _error(code)
    description = getattr(error, "description", "")
    return f"{error.__name__}{': ' + description if description else ''}"


def _error(code: int) -> Any:
    found: type[KafkaError] = kafka_errors.for_code(code)
    return found
