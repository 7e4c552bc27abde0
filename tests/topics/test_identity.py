"""Identities and the ids that derive from them. Their formats are frozen: run ids are in users' data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.identity import ClientId, Coordinates, Identity, SlotId, partition_in, run_id, start_digest


def test_the_formats_never_change() -> None:
    assert start_digest("start", "default", "fulfil") == "ec199153f1ea"
    assert run_id(7, Coordinates(0, "orders", 3, 17, "abc", 5)) == "7.b5e84c3b882ae9e193c1"
    assert run_id(7, ClientId("mine")) == "7.527cda55bbb5c45216c3"
    assert run_id(7, SlotId("shop-0123456789", 1_700_000_000_000)) == "7.7e5d3e83de26d20f37e1"


def test_the_floor_is_no_part_of_a_run_id_and_everything_else_is() -> None:
    identity = Coordinates(0, "orders", 3, 17, "abc", 0)
    assert run_id(1, identity) == run_id(1, Coordinates(0, "orders", 3, 17, "abc", 16))
    others = [
        Coordinates(1, "orders", 3, 17, "abc", 0),
        Coordinates(0, "orders2", 3, 17, "abc", 0),
        Coordinates(0, "orders", 4, 17, "abc", 0),
        Coordinates(0, "orders", 3, 18, "abc", 0),
        Coordinates(0, "orders", 3, 17, "abd", 0),
        ClientId("orders"),
        SlotId("orders", 3),
        SlotId("orders", 4),
    ]
    assert len({run_id(1, other) for other in [identity, *others]}) == 9
    assert run_id(2, identity) != run_id(1, identity)


def test_digests_do_not_run_into_each_other() -> None:
    assert start_digest("start", "a", "bc") != start_digest("start", "ab", "c")
    assert start_digest("start", "a", "b", "c") != start_digest("start", "a", "b")


identities = st.one_of(
    st.builds(Coordinates, st.integers(0, 9), st.text(), st.integers(0), st.integers(0), st.text(), st.integers(0)),
    st.builds(ClientId, st.text()),
    st.builds(SlotId, st.text(), st.integers(0)),
)


@given(st.integers(0, 999_999), identities)
def test_the_partition_is_in_the_run_id(partition: int, identity: Identity) -> None:
    assert partition_in(run_id(partition, identity)) == partition


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "7",
        "7.",
        ".00000000000000000000",
        "7.0000000000000000000",
        "7.000000000000000000000",
        "x.00000000000000000000",
        "-1.00000000000000000000",
        "1000000.00000000000000000000",
        "7.0000000000000000000g",
        "7.0000000000000000000A",
        "\u0667.00000000000000000000",
        "07.00000000000000000000",
        "\xb2.00000000000000000000",
    ],
)
def test_what_is_no_run_id_has_no_partition(text: str) -> None:
    assert partition_in(text) is None
