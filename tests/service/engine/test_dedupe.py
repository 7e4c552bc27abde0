from hypothesis import given
from hypothesis import strategies as st

from headrace.service.engine.dedupe import PRUNE_MIN, REDRIVE_RETENTION_MS, Dedupe
from headrace.topics.identity import ClientId, Coordinates
from headrace.topics.redrive import Redriven

DAY_MS = 86_400_000


def source(
    offset: int, n: str = "a", *, floor: int = 0, epoch: int = 0, origin: str = "orders", partition: int = 0
) -> Coordinates:
    return Coordinates(epoch, origin, partition, offset, n, floor)


def accepts(dedupe: Dedupe, identity: Coordinates | ClientId, at_ms: int = 0) -> bool:
    return dedupe.accept(identity, at_ms, DAY_MS)


def test_an_identity_is_accepted_once() -> None:
    dedupe = Dedupe()
    assert accepts(dedupe, source(5))
    assert not accepts(dedupe, source(5))
    assert not accepts(dedupe, source(5, floor=3))  # the floor is no part of it


def test_every_part_of_an_identity_counts() -> None:
    dedupe = Dedupe()
    assert accepts(dedupe, source(5))
    assert accepts(dedupe, source(6))
    assert accepts(dedupe, source(5, "b"))
    assert accepts(dedupe, source(5, origin="refunds"))
    assert accepts(dedupe, source(5, partition=1))
    assert accepts(dedupe, source(5, epoch=1))


def test_order_of_arrival_does_not_matter() -> None:
    """A high-water mark would lose 4 here: routers of two versions match differently."""
    dedupe = Dedupe()
    assert accepts(dedupe, source(9))
    assert accepts(dedupe, source(4))


def test_below_the_floor_everything_is_known() -> None:
    dedupe = Dedupe()
    assert accepts(dedupe, source(9, floor=7))
    assert not accepts(dedupe, source(6))
    assert accepts(dedupe, source(7))


def test_a_floor_rises_even_with_a_duplicate_and_never_falls() -> None:
    dedupe = Dedupe()
    assert accepts(dedupe, source(9))
    assert not accepts(dedupe, source(9, floor=8))
    assert not accepts(dedupe, source(7, floor=2))
    assert accepts(dedupe, source(8))


def test_a_newer_epoch_begins_anew_and_ends_the_older_ones() -> None:
    dedupe = Dedupe()
    assert accepts(dedupe, source(9, floor=9))
    assert accepts(dedupe, source(3, epoch=1))
    assert not accepts(dedupe, source(3, epoch=1))
    assert not accepts(dedupe, source(10, epoch=0))
    assert accepts(dedupe, source(10, epoch=0, origin="refunds"))  # another source was not rewound


def test_what_came_before_its_own_epoch_was_announced_stays_known() -> None:
    """A router hears of an epoch from one partition and sends to another that has not heard of it."""
    dedupe = Dedupe()
    assert accepts(dedupe, source(9, epoch=0, floor=8))
    assert accepts(dedupe, source(5, epoch=1))
    assert dedupe.begin_epoch("orders", 1, (4, 2))
    assert not accepts(dedupe, source(5, epoch=1))
    assert accepts(dedupe, source(4, epoch=1))
    assert not accepts(dedupe, source(3, epoch=1))  # below where it begins
    assert not accepts(dedupe, source(1, epoch=1, partition=1))
    assert not accepts(dedupe, source(9, epoch=0))


def test_an_epoch_that_was_announced_ends_the_older_ones_everywhere() -> None:
    dedupe = Dedupe()
    assert accepts(dedupe, source(9, floor=5))
    assert dedupe.begin_epoch("orders", 1, (7, 4))
    assert not accepts(dedupe, source(10))
    assert not accepts(dedupe, source(10, partition=5)), "a partition of which nothing was heard yet"
    assert accepts(dedupe, source(10, origin="refunds"))
    assert accepts(dedupe, source(9, epoch=1)), "read anew, it runs anew"
    assert not accepts(dedupe, source(6, epoch=1)), "below where the epoch begins everything is done"
    assert not accepts(dedupe, source(3, epoch=1, partition=1))
    assert accepts(dedupe, source(0, epoch=1, partition=5)), "a partition that was added since"


def test_an_epoch_that_is_not_newer_has_no_effect() -> None:
    dedupe = Dedupe()
    assert dedupe.begin_epoch("orders", 2, (7,))
    assert accepts(dedupe, source(9, epoch=2))
    for epoch in (0, 1, 2):
        assert not dedupe.begin_epoch("orders", epoch, (0,))
    assert not accepts(dedupe, source(9, epoch=2))
    assert not accepts(dedupe, source(3, epoch=2))


def test_marks_stay_bounded_while_the_floor_follows() -> None:
    dedupe = Dedupe()
    for offset in range(20_000):
        assert accepts(dedupe, source(offset, floor=max(0, offset - 10)))
    assert len(dedupe.origins["orders", 0].seen) <= PRUNE_MIN + 16


def test_marks_of_many_partitions_stay_few_in_each_of_them() -> None:
    """A run-log partition hears from each partition of the source, from most of them rarely."""
    dedupe = Dedupe()
    for offset in range(300):
        for partition in range(64):
            assert accepts(dedupe, source(offset, floor=offset, partition=partition))
    assert sum(len(marks.seen) for marks in dedupe.origins.values()) <= 64 * (PRUNE_MIN + 1)


def test_pruning_waits_until_it_is_worth_its_walk() -> None:
    """While the floor stays behind, each walk sees half as much again: all walks together are three times what was accepted."""
    dedupe = Dedupe()
    walked, marks = 0, None
    for offset in range(20_000):
        before = None if marks is None else marks.seen
        assert accepts(dedupe, source(offset, floor=offset // 100))
        marks = dedupe.origins["orders", 0]
        walked += 0 if marks.seen is before else len(marks.seen)
    assert walked <= 3 * 20_000


offsets = st.integers(0, 30)
identities = st.builds(
    source,
    offsets,
    st.sampled_from("ab"),
    floor=offsets,
    epoch=st.integers(0, 1),
    origin=st.sampled_from(["orders", "refunds"]),
    partition=st.integers(0, 1),
)


@given(st.lists(identities, max_size=120), st.integers(1, 8))
def test_pruning_keeps_exactness(sent: list[Coordinates], prune_every: int) -> None:
    """Against a reference that forgets nothing; pruning is made to happen all the time."""
    dedupe = Dedupe()
    seen: set[tuple[int, str, int, int, str]] = set()
    floors: dict[tuple[int, str, int], int] = {}
    newest: dict[tuple[str, int], int] = {}
    for identity in sent:
        at = (identity.origin, identity.partition)
        newest[at] = max(newest.get(at, 0), identity.epoch)
        where = (identity.epoch, *at)
        what = (*where, identity.offset, identity.n)
        expected = identity.epoch == newest[at] and what not in seen and identity.offset >= floors.get(where, 0)
        assert accepts(dedupe, identity) == expected
        if expected:
            seen.add(what)
        floors[where] = max(floors.get(where, 0), identity.floor)
        for marks in dedupe.origins.values():
            marks.pruned_at = len(marks.seen) - PRUNE_MIN - prune_every


def test_a_client_id_is_kept_for_its_time_and_then_forgotten() -> None:
    dedupe = Dedupe()
    assert accepts(dedupe, ClientId("x"), 1000)
    assert not accepts(dedupe, ClientId("x"), 1000 + DAY_MS)
    assert accepts(dedupe, ClientId("y"), 1001 + DAY_MS)
    assert list(dedupe.clients) == ["y"]
    assert accepts(dedupe, ClientId("x"), 1001 + DAY_MS)


def test_a_client_id_and_coordinates_never_meet() -> None:
    dedupe = Dedupe()
    assert accepts(dedupe, ClientId("orders"))
    assert accepts(dedupe, source(0))


# --- redriven dead letters --------------------------------------------------------------------------------------------


def copy(count: int = 1, *, of: str = "orders.dlq/0/5", digest: str = "0a") -> Redriven:
    return Redriven(of, count, digest)


def test_of_the_copies_of_one_redrive_one_is_accepted() -> None:
    dedupe = Dedupe()
    assert dedupe.accept_redrive(source(70), copy(), 0)
    assert not dedupe.accept_redrive(source(71), copy(), 0)
    assert dedupe.accept_redrive(source(71, "b"), copy(), 0), "another workflow's start"
    assert dedupe.accept_redrive(source(72), copy(2), 0), "redriven once more, on purpose"
    assert dedupe.accept_redrive(source(73), copy(of="orders.dlq/0/6"), 0)
    assert dedupe.accept_redrive(source(74), copy(digest="0b"), 0), "somebody took the headers over for another record"
    assert dedupe.accept_redrive(source(71, epoch=1), copy(), 0), "the topic is read anew"


def test_copies_are_known_for_a_week_of_the_logs_time() -> None:
    dedupe = Dedupe()
    assert dedupe.accept_redrive(source(70), copy(), 0)
    assert dedupe.accept_redrive(source(71), copy(of="orders.dlq/0/6"), REDRIVE_RETENTION_MS)
    assert not dedupe.accept_redrive(source(72), copy(), REDRIVE_RETENTION_MS)
    assert dedupe.accept_redrive(source(73), copy(of="orders.dlq/0/7"), REDRIVE_RETENTION_MS + 1)
    assert list(dedupe.redrives) == ["0/orders.dlq/0/6#1.0a/a", "0/orders.dlq/0/7#1.0a/a"]
