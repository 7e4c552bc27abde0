"""What is kept beside a source partition's position."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.service.source_position import Before, SourcePosition, of
from headrace.topics.log import Position

offsets = st.integers(min_value=0, max_value=2**62)
befores = st.none() | st.builds(Before, offsets, offsets)


@given(st.builds(SourcePosition, offsets, offsets, st.integers(0, 9), st.booleans(), epoch=offsets, before=befores))
def test_a_position_is_read_as_it_was_written(position: SourcePosition) -> None:
    written = position.position()
    assert of(written) == position
    assert len(written.metadata) < 4096


@pytest.mark.parametrize("metadata", ["", "moved by hand", "[]", '{"touched": "many"}', "null"])
def test_metadata_of_another_tool_count_as_a_clean_stop(metadata: str) -> None:
    assert of(Position(12, metadata)) == SourcePosition(12, clean=True)


def test_metadata_of_a_later_version_are_read_as_far_as_they_are_known() -> None:
    assert of(Position(12, '{"touched": 20, "tries": 1, "colour": "red"}')) == SourcePosition(12, 20, 1)
