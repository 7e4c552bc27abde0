"""Placement: everybody gets a share, nothing is placed twice, and a change moves no more than it must."""

import string
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.log import TopicPartition
from headrace.topics.placement import Candidate, place

RUNS = "shop.runs"
names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6)
groups = st.sets(names, min_size=1, max_size=12)
counts = st.integers(min_value=1, max_value=70)


def fresh(members: set[str], *topics: str) -> list[Candidate]:
    return [Candidate(name, frozenset(topics or (RUNS,))) for name in sorted(members)]


def holding(placed: dict[str, frozenset[TopicPartition]], *, generation: int = 1) -> list[Candidate]:
    return [Candidate(name, frozenset({RUNS}), held, generation) for name, held in placed.items()]


def owners(placed: dict[str, frozenset[TopicPartition]]) -> dict[TopicPartition, str]:
    return {at: name for name, given in placed.items() for at in given}


@given(groups, counts)
def test_every_partition_is_placed_once_and_shares_differ_by_one_at_most(members: set[str], count: int) -> None:
    placed = place({RUNS: count}, fresh(members))
    assert sorted(at for given in placed.values() for at in given) == [TopicPartition(RUNS, n) for n in range(count)]
    sizes = [len(given) for given in placed.values()]
    assert max(sizes) - min(sizes) <= 1


@given(groups, counts, st.randoms())
def test_the_order_of_the_members_does_not_matter(members: set[str], count: int, random: Random) -> None:
    candidates = fresh(members)
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert place({RUNS: count}, shuffled) == place({RUNS: count}, candidates)


@given(groups, names, counts)
def test_who_joins_is_all_that_partitions_move_to(members: set[str], newcomer: str, count: int) -> None:
    members.discard(newcomer)
    before = place({RUNS: count}, fresh(members)) if members else {}
    after = place({RUNS: count}, [*holding(before), *fresh({newcomer})])
    was, now = owners(before), owners(after)
    assert {now[at] for at in was if now[at] != was[at]} <= {newcomer}
    assert len(after[newcomer]) in {count // len(after), -(-count // len(after))}


@given(st.sets(names, min_size=2, max_size=12), counts)
def test_only_what_the_leaver_had_moves(members: set[str], count: int) -> None:
    before = place({RUNS: count}, fresh(members))
    leaver = min(members)
    after = place({RUNS: count}, [each for each in holding(before) if each.name != leaver])
    was, now = owners(before), owners(after)
    assert {at for at in was if now[at] != was[at]} == set(before[leaver])


@given(groups, counts)
def test_nothing_moves_when_nothing_changes(members: set[str], count: int) -> None:
    before = place({RUNS: count}, fresh(members))
    assert place({RUNS: count}, holding(before)) == before


@given(st.sets(names, min_size=2, max_size=12), counts)
def test_who_retires_gets_nothing_and_the_others_keep_theirs(members: set[str], count: int) -> None:
    before = place({RUNS: count}, fresh(members))
    leaver = max(members)
    after = place(
        {RUNS: count}, [msgspec.structs.replace(each, retiring=each.name == leaver) for each in holding(before)]
    )
    assert after[leaver] == frozenset()
    assert all(before[name] <= after[name] for name in members - {leaver})


@given(groups, counts, st.lists(st.tuples(st.booleans(), names), max_size=8))
def test_a_storm_of_joins_and_leaves_keeps_the_shares_even(
    members: set[str], count: int, storm: list[tuple[bool, str]]
) -> None:
    placed = place({RUNS: count}, fresh(members))
    for generation, (joins, name) in enumerate(storm):
        candidates = [each for each in holding(placed, generation=generation) if joins or each.name != name]
        if joins and name not in placed:
            candidates += fresh({name})
        if candidates:
            placed = place({RUNS: count}, candidates)
            sizes = [len(given) for given in placed.values()]
            assert sum(sizes) == count
            assert max(sizes) - min(sizes) <= 1


def test_all_retiring_means_nobody_has_anything() -> None:
    assert place({RUNS: 4}, [Candidate("one", frozenset({RUNS}), retiring=True)]) == {"one": frozenset()}


def test_a_source_goes_to_members_that_read_it() -> None:
    old, new = Candidate("old", frozenset({RUNS, "a"})), Candidate("new", frozenset({RUNS, "a", "b"}))
    placed = place({RUNS: 2, "a": 2, "b": 4, "nobody": 3}, [old, new])
    assert {at for at in placed["new"] if at.topic == "b"} == {TopicPartition("b", n) for n in range(4)}
    assert [sum(at.topic == RUNS for at in given) for given in placed.values()] == [1, 1]
    assert [sum(at.topic == "a" for at in given) for given in placed.values()] == [1, 1]
    assert not any(at.topic == "nobody" for given in placed.values() for at in given)


def test_of_two_that_claim_a_partition_the_newer_generation_keeps_it() -> None:
    mine = frozenset({TopicPartition(RUNS, 0)})
    zombie = Candidate("a", frozenset({RUNS}), mine, generation=4)
    owner = Candidate("b", frozenset({RUNS}), mine, generation=5)
    assert place({RUNS: 1}, [zombie, owner])["b"] == mine
    assert (
        place(
            {RUNS: 1},
            [
                msgspec.structs.replace(zombie, name="b", generation=4),
                msgspec.structs.replace(owner, name="a", generation=5),
            ],
        )["a"]
        == mine
    )


def test_topics_of_one_partition_spread_over_the_members() -> None:
    placed = place({f"t{n}": 1 for n in range(8)}, fresh({"a", "b", "c", "d"}, *(f"t{n}" for n in range(8))))
    assert [len(given) for given in placed.values()] == [2, 2, 2, 2]


def test_the_answer_is_frozen() -> None:
    """Members of two versions must agree: the leader may be either."""
    placed = place({RUNS: 8, "orders": 3}, fresh({"one", "two", "three"}, RUNS, "orders"))
    assert {name: sorted(map(str, given)) for name, given in placed.items()} == FROZEN


FROZEN = {
    "one": ["orders/2", "shop.runs/4", "shop.runs/6"],
    "three": ["orders/1", "shop.runs/1", "shop.runs/2", "shop.runs/3"],
    "two": ["orders/0", "shop.runs/0", "shop.runs/5", "shop.runs/7"],
}
