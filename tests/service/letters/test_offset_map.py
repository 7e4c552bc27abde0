from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headrace.service.letters.offset_map import OffsetMap

CHANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8), st.sampled_from("ab")))


@given(CHANGES, st.integers(0, 31))
def test_it_says_what_a_value_for_each_offset_would(changes: list[tuple[int, int, str]], start: int) -> None:
    ranges, plain = OffsetMap[str](), dict[int, str]()
    for first, length, letter in changes:
        last = first + length
        ranges.change(first, last, lambda before, letter=letter: ((before or "") + letter)[-3:])
        for offset in range(first, last + 1):
            plain[offset] = (plain.get(offset, "") + letter)[-3:]
    assert {offset: ranges.get(offset) for offset in range(45) if ranges.get(offset) is not None} == plain
    spans = list(ranges.spans(start, 25))
    assert {offset: value for first, last, value in spans for offset in range(first, last + 1)} == {
        offset: value for offset, value in plain.items() if start <= offset < 25
    }
    whole = list(ranges.spans(0, 100))
    assert all(last < first for (_, last, _), (first, _, _) in pairwise(whole))
    assert not any(
        last + 1 == first and value == next_value for (_, last, value), (first, _, next_value) in pairwise(whole)
    ), "neighbours with one value are one range"
    ranges.forget_below(start)
    assert all(ranges.get(offset) == plain.get(offset) for offset in range(start, 45))
