"""Waits that double, up to the longest."""

from headrace.topics.back_off import BackOff, back_off_s


def test_waits_double_up_to_the_longest_and_begin_again_after_a_success() -> None:
    back_off = BackOff((0.1, 0.5))
    assert [back_off.next_s() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert back_off.failures == 5
    back_off.reset()
    assert back_off.failures == 0
    assert back_off.next_s() == 0.1


def test_any_number_of_failures_has_a_wait() -> None:
    assert back_off_s((0.1, 5.0), 10**9) == 5.0


async def test_waiting_counts() -> None:
    back_off = BackOff((0.0, 0.0))
    await back_off.wait()
    assert back_off.failures == 1
