"""The size check says no before a broker would, and hardly earlier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.codec_kafka import packed
from headrace.topics.log import AppendRefused, NewRecord, TopicPartition
from headrace.topics.record_size import BATCH_FRAMING_BYTES, checked_sizes

AT = TopicPartition("t", 0)
records = st.lists(
    st.builds(
        NewRecord,
        value=st.none() | st.binary(max_size=400),
        key=st.none() | st.binary(max_size=20),
        headers=st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=10), st.binary(max_size=20))).map(
            tuple
        ),
    ),
    min_size=1,
    max_size=20,
)


@given(records)
def test_what_is_packed_is_never_larger_than_what_was_counted(some: list[NewRecord]) -> None:
    sizes = checked_sizes(AT, some, 10**9)
    data = packed(some, 1, 0, 0, timestamp_ms=1_800_000_000_000)
    counted = BATCH_FRAMING_BYTES + sum(sizes)
    assert len(data) <= counted


def test_the_first_record_that_does_not_fit_is_named() -> None:
    with pytest.raises(AppendRefused, match="Record 1 for t/0 has 1000 bytes"):
        checked_sizes(AT, [NewRecord(b"x"), NewRecord(b"x" * 1000)], 1000)
