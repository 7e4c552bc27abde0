"""The audit topic's entries on the wire."""

import pytest

from headrace.observability.label import DiscardReason
from headrace.service.audit_entry import AuditEntry, decoded, encoded

ENTRY = AuditEntry(
    kind=DiscardReason.UNMATCHED, topic="orders", partition=3, first=7, last=9, reason='no "type"', at_ms=1_700_000_000
)
WIRE = (
    b'{"kind":"unmatched","topic":"orders","partition":3,"first":7,"last":9,"reason":"no \\"type\\"","at_ms":1700000000'
)


def test_an_entry_is_written_as_it_always_was() -> None:
    assert encoded(ENTRY) == WIRE + b"}"


def test_an_epoch_is_written_where_there_is_one() -> None:
    entry = AuditEntry(kind="expired", topic="t", partition=0, first=0, last=0, reason="", at_ms=1, epoch=2)
    assert encoded(entry).endswith(b'"at_ms":1,"epoch":2}')
    assert decoded(encoded(entry)) == entry


def test_an_entry_of_a_later_version_is_read() -> None:
    entry = decoded(WIRE.replace(b"unmatched", b"postponed") + b',"more":1}')
    assert entry is not None
    assert entry.kind == "postponed"


@pytest.mark.parametrize("value", [b"", b"{}", b"null", b'{"topic":"orders"}', b"\xff", b'{"kind":"\xff"}'])
def test_what_is_not_ours_is_no_entry(value: bytes) -> None:
    assert decoded(value) is None


@pytest.mark.parametrize(
    ("topic", "partition", "epoch", "offset", "is_in"),
    [
        ("orders", 3, 0, 7, True),
        ("orders", 3, 0, 9, True),
        ("orders", 3, 0, 6, False),
        ("orders", 3, 0, 10, False),
        ("orders", 3, 1, 8, False),
        ("orders", 2, 0, 8, False),
        ("others", 3, 0, 8, False),
    ],
)
def test_an_entry_lists_the_records_of_its_range(
    topic: str, partition: int, epoch: int, offset: int, is_in: bool
) -> None:
    assert ENTRY.lists(topic, partition, epoch, offset) is is_in
