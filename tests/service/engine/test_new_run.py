"""A new run, and the key that it may have to wait for."""

from headrace.service.engine.gate import Skip
from headrace.service.engine.instruction import Begin, Close, Joined
from headrace.service.engine.run_state import Phase
from headrace.service.engine.state import Forward, Refusal
from headrace.topics.command import OnConflict
from headrace.topics.identity import ClientId, Coordinates
from headrace.topics.outcome import (
    RunEnded,
    RunStatus,
)
from headrace.topics.partition_hash import partition_of
from tests.service.engine.driver import DAY_MS, Driver, forwarded
from tests.service.engine.workflows import emits, shop


def two(policy: OnConflict) -> tuple[Driver, str, str]:
    """A driver with an open run of key "k", and a second start of that key."""
    driver = Driver(shop, emits)
    return driver, driver.start(shop, 1, key="k", policy=policy), driver.start(shop, 2, key="k", policy=policy)


def test_a_start_opens_a_run() -> None:
    driver = Driver(shop)
    run = driver.start(shop, {"x": 1})
    state = driver.state.runs[run]
    assert (state.phase, bytes(state.start.input), state.began_at_ms) == (Phase.OPEN, b'{"x":1}', driver.now_ms)
    assert [type(each) for each in driver.instructions] != []


def test_a_start_of_one_identity_opens_one_run() -> None:
    driver = Driver(shop)
    identity = Coordinates(0, "orders", 3, 17, "digest", 0)
    run = driver.start(shop, identity=identity)
    driver.start(shop, identity=identity)
    assert driver.last.skip is Skip.DUPLICATE
    driver.succeed(run, "/1/work")
    driver.start(shop, identity=identity)  # nor after its end
    assert driver.last.skip is Skip.DUPLICATE
    assert not driver.state.runs


def test_an_open_run_keeps_its_client_id_however_long_it_takes() -> None:
    driver = Driver(shop)
    first = driver.start(shop, identity=ClientId("mine"))
    driver.now_ms += 3 * DAY_MS
    driver.start(shop)
    driver.start(shop, identity=ClientId("mine"))
    assert driver.last.skip is Skip.DUPLICATE
    driver.succeed(first, "/1/work")
    driver.now_ms += DAY_MS
    driver.start(shop, identity=ClientId("mine"))
    assert driver.last.skip is Skip.DUPLICATE
    driver.now_ms += 1
    driver.start(shop)
    assert driver.start(shop, identity=ClientId("mine")) == first  # a day after its end the id is forgotten
    assert first in driver.state.runs


def test_allow_ignores_the_key() -> None:
    driver, first, second = two(OnConflict.ALLOW)
    assert driver.open(first) == driver.open(second) == ["/1/work"]
    assert driver.state.slots == {}


def test_queue_starts_the_next_run_of_a_key_when_the_open_one_ends() -> None:
    driver, first, second = two(OnConflict.QUEUE)
    third = driver.start(shop, 3, key="k", policy=OnConflict.QUEUE)
    elsewhere = driver.start(shop, 4, key="other", policy=OnConflict.QUEUE)
    assert [driver.state.runs[each].phase for each in (first, second, third, elsewhere)] == [
        Phase.OPEN,
        Phase.QUEUED,
        Phase.QUEUED,
        Phase.OPEN,
    ]
    assert second not in driver.live
    driver.now_ms += 500
    driver.succeed(first, "/1/work")
    assert driver.open(second) == ["/1/work"]
    assert driver.state.runs[second].began_at_ms == driver.now_ms
    assert third not in driver.live
    driver.fail(second, "/1/work")
    driver.succeed(third, "/1/work")
    driver.succeed(elsewhere, "/1/work")
    assert driver.state.slots == {}


def test_join_is_noted_on_the_open_run() -> None:
    driver, first, second = two(OnConflict.JOIN)
    assert [type(each) for each in driver.instructions] == [Joined]
    assert driver.state.runs[first].joined == 1
    assert second not in driver.state.runs


def test_reject_leaves_by_the_outbox() -> None:
    driver, first, second = two(OnConflict.REJECT)
    (entry,) = driver.entries(Refusal)
    assert isinstance(entry, Refusal)
    assert (entry.open_run, bytes(entry.start.input)) == (first, b"2")
    assert second not in driver.state.runs
    driver.sent(entry.id)
    assert driver.state.outbox == {}
    driver.succeed(first, "/1/work")
    third = driver.start(shop, 3, key="k", policy=OnConflict.REJECT)
    assert driver.open(third) == ["/1/work"]


def test_keys_of_other_workflows_are_other_keys() -> None:
    driver = Driver(shop, emits)
    first = driver.start(shop, key="k", policy=OnConflict.QUEUE)
    second = driver.start(emits, key="k", policy=OnConflict.QUEUE)
    assert {first, second} == set(driver.live)


def test_a_start_whose_key_lives_elsewhere_is_forwarded_once() -> None:
    partitions = 8
    home = partition_of(b"k", partitions)
    away = (home + 1) % partitions
    sender, receiver = (
        Driver(shop, partition=away, partitions=partitions),
        Driver(shop, partition=home, partitions=partitions),
    )
    sender.start(shop, 1, key="k", policy=OnConflict.QUEUE)
    (entry,) = sender.entries(Forward)
    assert isinstance(entry, Forward)
    assert not sender.state.runs
    assert entry.partition == home
    sender.restart()
    assert sender.entries(Forward) == [entry]  # the same identity on every owner
    receiver.append(forwarded(entry))
    receiver.append(forwarded(entry))
    assert receiver.last.skip is Skip.DUPLICATE
    (run,) = receiver.live
    assert receiver.open(run) == ["/1/work"]
    sender.sent(entry.id)
    assert sender.state.outbox == {}


def test_a_start_without_a_policy_stays_where_it_is() -> None:
    driver = Driver(shop, partition=3, partitions=8)
    run = driver.start(shop, key="k")
    assert run.startswith("3.")
    assert driver.open(run) == ["/1/work"]


def test_a_queued_run_that_is_cancelled_leaves_the_queue() -> None:
    driver, first, second = two(OnConflict.QUEUE)
    third = driver.start(shop, key="k", policy=OnConflict.QUEUE)
    driver.cancel(second)
    assert driver.ended(second).status == "cancelled"
    driver.succeed(first, "/1/work")
    assert driver.open(third) == ["/1/work"]


def test_an_open_run_that_is_cancelled_makes_room_for_the_next() -> None:
    driver, first, second = two(OnConflict.QUEUE)
    driver.cancel(first)
    assert driver.ended(first).status == "cancelled"
    assert driver.open(second) == ["/1/work"]


def test_a_terminal_record_for_a_queued_run_has_no_effect() -> None:
    driver, first, second = two(OnConflict.QUEUE)
    driver.propose(RunEnded(second, RunStatus.FAILED))
    assert driver.last.without_effect
    driver.succeed(first, "/1/work")
    assert driver.open(second) == ["/1/work"]


def test_the_end_of_a_run_begins_the_next_of_its_key() -> None:
    driver, first, second = two(OnConflict.QUEUE)
    driver.propose(RunEnded(first, RunStatus.FAILED))
    close, begin = driver.instructions
    assert isinstance(close, Close)
    assert isinstance(begin, Begin)
    assert (close.run.id, begin.run.id) == (first, second)
