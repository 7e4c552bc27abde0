"""A redriven record: a dead letter's original, in its topic again, with headers that say so.

`headrace-redrive` counts how often the record was redriven, `headrace-redrive-of` is the dead letter (`topic/partition/offset`), and `headrace-redrive-app`
the app whose letter it was: where several apps read a topic, the others have had the record already. What the letter's headers said is gone, all else is as
it was byte for byte.

The letter, the count and the bytes are such a record's identity beside its own place: a copy that is sent twice is dropped. That the bytes count keeps apart
what a program writes into the same topic with headers that it has taken over. Headers that make no sense, or name the letters of another topic, say nothing:
the record is a plain one. Written by the command line and the API, read by the router.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from headrace.topics.dead_letter import dead_letter_topic
from headrace.topics.log import LogRecord, NewRecord

if TYPE_CHECKING:
    from headrace.topics.dead_letter import DeadLetter, Headers
    from headrace.topics.log import TopicPartition

COUNT = "headrace-redrive"
OF = "headrace-redrive-of"
APP = "headrace-redrive-app"
_OURS = frozenset({COUNT, OF, APP})
_DIGITS_MAX = 9


class Redriven(msgspec.Struct, frozen=True, gc=False):
    """What a redriven record is a copy of. `digest` is of its key and value. The format of `copies` is kept in checkpoints: it never changes."""

    of: str  # topic/partition/offset of the dead letter
    count: int  # from 1
    digest: str

    @property
    def copies(self) -> str:
        """The same for every copy of one redrive."""
        return f"{self.of}#{self.count}.{self.digest}"


class OfOtherApp(msgspec.Struct, frozen=True):
    """It is another app's letter: this one has had the record before."""

    app: str


def redriven(record: LogRecord, topic: str, *, app: str, refused: str) -> Redriven | OfOtherApp | None:
    """What a record of this topic is a copy of; None: it is a plain one.

    `app` is our name, `refused` the topic of the app's refused outputs: an output that was redriven may start runs here, too.
    """
    headers = dict(record.headers)
    found = _place(headers.get(OF, b""), (dead_letter_topic(topic), refused))
    count = _number(headers.get(COUNT, b""))
    if found is None or not count:
        return None
    of_app = headers.get(APP)
    if of_app is not None and of_app != app.encode():
        return OfOtherApp(of_app.decode("utf-8", "replace"))
    return Redriven(found, count, _digest(record))


def redrive_count(headers: Headers) -> int:
    """How often a record was redriven, by its headers: 0 for a plain one."""
    for name, value in headers:
        if name == COUNT:
            return _number(value)
    return 0


def redrive(letter: DeadLetter, at: TopicPartition, offset: int, *, app: str, count: int) -> NewRecord:
    """The original of the dead letter that lies there, to be sent to its topic. `count` is from `redrive_count` of its headers."""
    kept = tuple(header for header in letter.headers if header[0] not in _OURS)
    ours = ((COUNT, str(count).encode()), (OF, f"{at}/{offset}".encode()), (APP, (letter.app or app).encode()))
    return NewRecord(value=letter.value, key=letter.key, headers=kept + ours)


def _place(raw: bytes, topics: tuple[str, ...]) -> str | None:
    """The letter's place as text, if it is one in these topics."""
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return None
    topic, partition, offset = [*text.rsplit("/", 2), "", ""][:3]
    sound = all(number.isdecimal() and len(number) <= 2 * _DIGITS_MAX for number in (partition, offset))
    return text if sound and topic in topics else None


def _number(raw: bytes) -> int:
    return int(raw) if raw.isdigit() and len(raw) <= _DIGITS_MAX else 0


def _digest(record: LogRecord) -> str:
    digest = blake2b(record.value or b"", digest_size=5)
    digest.update(record.key or b"")
    return digest.hexdigest()
