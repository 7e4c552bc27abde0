"""Ids of approvals: one function each way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.approval import approval_id, is_approval, run_and_step

RUN = "5.0123456789abcdef0123"


def test_an_id_is_the_run_and_the_step_without_slashes() -> None:
    assert approval_id(RUN, "/3/approval") == "5.0123456789abcdef0123-3-approval"
    assert run_and_step("5.0123456789abcdef0123-3-approval") == (RUN, "/3/approval")


@given(st.integers(0, 99_999), st.lists(st.integers(0, 99_999), min_size=1, max_size=9))
def test_every_approval_is_found_by_its_id(partition: int, places: list[int]) -> None:
    run = f"{partition}.{RUN.partition('.')[2]}"
    step = "".join(f"/{place}" for place in places) + "/approval"
    assert is_approval(step)
    assert run_and_step(approval_id(run, step)) == (run, step)


@pytest.mark.parametrize(
    "text",
    [
        "",
        RUN,
        f"{RUN}-approval",
        f"{RUN}-3-sleep",
        f"{RUN}/3/approval",
        f"{RUN}-3-approval\n",
        f"{RUN}--approval",
        "5.x-3-approval",
        f"{RUN}-٣-approval",
    ],
)
def test_what_is_no_id_is_none(text: str) -> None:
    assert run_and_step(text) is None


@pytest.mark.parametrize("step", ["/timeout", "/3/sleep", "/approval/3/sleep", "approval"])
def test_other_timers_are_no_approvals(step: str) -> None:
    assert not is_approval(step)
