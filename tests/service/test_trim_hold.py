"""Which trims wait for the history, and when they do not any more."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.service.trim_hold import TrimHold


def test_a_trim_waits_until_the_history_has_read_beyond_it() -> None:
    hold = TrimHold(1_000)
    hold.completed(10, 100)
    hold.completed(20, 100)
    assert hold.until(None) is None
    assert hold.until(9) is None
    assert hold.until(15) == 10
    assert hold.size_bytes == 100
    assert hold.until(20) == 20
    assert (hold.size_bytes, hold.waits) == (0, False)
    assert hold.until(30) is None


def test_several_that_were_waited_for_are_one_trim() -> None:
    hold = TrimHold(1_000)
    for before in (10, 20, 30):
        hold.completed(before, 1)
    assert hold.until(25) == 20


def test_past_the_limit_the_oldest_log_goes_and_no_more_than_that() -> None:
    hold = TrimHold(250)
    for before in (10, 20, 30, 40):
        hold.completed(before, 100)
    assert hold.until(None) == 20
    assert hold.size_bytes == 200
    assert hold.until(None) is None


@given(
    st.lists(st.tuples(st.integers(0, 300), st.booleans(), st.integers(0, 60)), max_size=60),
    st.integers(0, 1_000),
)
def test_what_is_held_never_exceeds_the_limit_and_trims_only_rise(
    steps: list[tuple[int, bool, int]], bytes_max: int
) -> None:
    """Whatever the history does: each step is a checkpoint of so many bytes, or a look, with the history at some checkpoint or unknown."""
    hold, trimmed, complete = TrimHold(bytes_max), 0, 0
    for size, is_checkpoint, floor in steps:
        if is_checkpoint:
            complete += 1
            hold.completed(complete, size)
        before = hold.size_bytes
        found = hold.until(None if floor == 60 else floor)
        assert hold.size_bytes <= bytes_max
        if found is not None:
            assert trimmed < found <= complete
            assert found <= floor or before > bytes_max or floor == 60
            trimmed = found
