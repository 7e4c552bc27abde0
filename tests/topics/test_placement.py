"""Placement: everybody gets a share, nothing is placed twice, and a change moves no more than it must."""

import string
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.assignor_kafka import candidate, wish
from headrace.topics.log import TopicPartition
from headrace.topics.placement import Candidate, newest, place

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


def deploying(placed: dict[str, frozenset[TopicPartition]], new: set[str], *, leaver: str = "") -> list[Candidate]:
    """Those in `new` have a newer version of the workflow."""
    return [
        msgspec.structs.replace(
            each,
            definitions={"default/fulfil": "10" if each.name in new else "9"},
            retiring=each.name == leaver,
        )
        for each in holding(placed)
    ]


@given(st.sets(names, min_size=2, max_size=12), counts, st.data())
def test_who_has_the_newest_definitions_gets_what_is_free_up_to_two_shares(
    members: set[str], count: int, data: st.DataObject
) -> None:
    before = place({RUNS: count}, fresh(members))
    leaver, *others = data.draw(st.permutations(sorted(members)))
    new = data.draw(st.sets(st.sampled_from(others)))
    after = place({RUNS: count}, deploying(before, new, leaver=leaver))
    assert sum(map(len, after.values())) == count
    assert all(before[name] <= after[name] for name in others)  # nothing is taken away
    got = {name: len(after[name] - before[name]) for name in others}
    share = -(-count // len(others))
    for name in new:
        assert len(after[name]) <= 2 * share
    old = set(others) - new
    if new and any(got[name] for name in old):  # only what the others had no room for
        assert all(len(after[name]) >= 2 * (count // len(others)) for name in new)
    if not new or not old:
        sizes = [len(after[name]) for name in others]
        assert max(sizes) - min(sizes) <= 1


@given(st.sets(names, min_size=2, max_size=12), counts, st.data())
def test_while_a_deploy_stands_still_nothing_moves_and_after_it_shares_are_even(
    members: set[str], count: int, data: st.DataObject
) -> None:
    new = data.draw(st.sets(st.sampled_from(sorted(members)), max_size=len(members) - 1))
    nothing = {name: frozenset[TopicPartition]() for name in members}
    placed = place({RUNS: count}, deploying(nothing, new))
    sizes = [len(placed[name]) for name in new] or [0]
    assert max(sizes) - min(sizes) <= 2
    assert place({RUNS: count}, deploying(placed, new)) == placed
    after = [len(given) for given in place({RUNS: count}, deploying(placed, members)).values()]
    assert max(after) - min(after) <= 1


def test_one_that_lacks_a_workflow_has_not_the_newest_definitions() -> None:
    both, one = {"default/a": "1", "default/b": "1"}, {"default/a": "1"}
    assert newest([Candidate("x", frozenset(), definitions=both), Candidate("y", frozenset(), definitions=one)]) == {
        "x"
    }
    apart = [
        Candidate("x", frozenset(), definitions={"a": "2", "b": "1"}),
        Candidate("y", frozenset(), definitions={"a": "1", "b": "2"}),
    ]
    assert newest(apart) == frozenset()
    assert (
        newest([Candidate("x", frozenset(), definitions=both), Candidate("y", frozenset(), definitions=both)])
        == frozenset()
    )


def test_what_a_member_says_of_itself_is_what_the_leader_reads() -> None:
    held = frozenset({TopicPartition(RUNS, 3), TopicPartition("orders", 0)})
    said = wish((RUNS, "orders"), held, 7, retiring=True, definitions={"default/fulfil": "10"})
    assert candidate("m", said) == Candidate("m", frozenset({RUNS, "orders"}), held, 7, True, {"default/fulfil": "10"})


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
