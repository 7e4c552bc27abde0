"""How large a record is on the wire, so that the broker never has to refuse one. Both logs check with this before they
queue anything.

Sizes are upper bounds, uncompressed, of Kafka's record format v2 (KIP-98): compression would hide what a reader has to
unpack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.topics.log import AppendRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.topics.log import NewRecord, TopicPartition

BATCH_FRAMING_BYTES = 61  # the header of a record batch
# length 4, attributes 1, timestamp delta 5, offset delta 4, key and value lengths 8, header count 3
RECORD_FRAMING_BYTES = 25
HEADER_FRAMING_BYTES = 8  # lengths of name and value
DEFAULT_MESSAGE_BYTES_MAX = 1_048_588  # Kafka's default of max.message.bytes


def wire_size(record: NewRecord) -> int:
    """Bytes that a record takes in a batch, at most, without the batch's own framing."""
    return record.size + RECORD_FRAMING_BYTES + HEADER_FRAMING_BYTES * len(record.headers)


def checked_sizes(at: TopicPartition, records: Sequence[NewRecord], message_bytes_max: int) -> list[int]:
    """The wire size of each record. Raises `AppendRefused` for the first one that a batch of `message_bytes_max` cannot
    hold, `ValueError` for none.
    """
    if not records:
        raise ValueError("a batch needs at least one record")
    room = message_bytes_max - BATCH_FRAMING_BYTES
    sizes = [
        len(record.value) + RECORD_FRAMING_BYTES  # as the run log's are: without a call for each
        if record.value is not None and record.key is None and not record.headers
        else wire_size(record)
        for record in records
    ]
    if max(sizes) > room:
        index = next(i for i, size in enumerate(sizes) if size > room)
        raise AppendRefused(
            f"Record {index} for {at} has {records[index].size} bytes; "
            f"{at.topic} takes at most {room - RECORD_FRAMING_BYTES}.",
            why=f"max.message.bytes of {at.topic} is {message_bytes_max}; the check is made before compression.",
            do="Send less, or a reference to where it is kept, or raise max.message.bytes of the topic.",
        )
    return sizes
