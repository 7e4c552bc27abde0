from typing import Any

import pytest

from headrace.handlers.breaker import Breaker, BreakerStatus, CallOutcome, Transition
from headrace.handlers.definition import Handler, handler
from headrace.handlers.dispatch import Dispatched, Dispatcher, Held, HeldReason, Started, outcome_of
from headrace.handlers.pool import Pool
from headrace.handlers.rate_limit import RateLimit
from headrace.handlers.result import AttemptCancelled, AttemptEnd, AttemptError, AttemptOk
from headrace.topics.errors import Cause, DefinitionError, Fatal

OK, FAILED, CANCELLED = CallOutcome.SUCCEEDED, CallOutcome.FAILED, CallOutcome.CANCELLED
AnyHandler = Handler[*tuple[Any, ...], Any]


def defined(**policies: Any) -> AnyHandler:
    async def task() -> None: ...

    return handler(name="h", **policies)(task)


def breaker(name: str = "b", **more: Any) -> Breaker:
    settings: dict[str, Any] = {"window": 2, "minimum_calls": 2, "open_for": "10s", "probes": 1}
    return Breaker(name, **(settings | more))


FREE = defined()
POOLED = defined(pool=Pool("p", size=2))
BROKEN = defined(breaker=breaker())
FAILING = defined(breaker=breaker("f", on_open="fail"))
BOTH = defined(pool=Pool("p", size=2), breaker=breaker())
LIMITED = defined(rate_limit=RateLimit("l", limit=2, per="10s"))


def started(dispatched: Dispatched[str]) -> list[str]:
    return [each.attempt for each in dispatched.started]


def opened(dispatcher: Dispatcher[str], definition: AnyHandler, now_ms: int = 0) -> None:
    for attempt in ("open-1", "open-2"):
        dispatcher.offer(now_ms, attempt, definition)
    dispatcher.complete(now_ms, "open-1", FAILED, 1)
    moved = dispatcher.complete(now_ms, "open-2", FAILED, 1).transitions
    assert [each.after for each in moved] == [BreakerStatus.OPEN]


def test_an_attempt_without_policies_starts_at_once() -> None:
    dispatcher = Dispatcher[str]()
    assert dispatcher.offer(5, "a", FREE) == Dispatched(started=(Started("a", 0),))
    assert dispatcher.statistics(5).running == 1
    assert dispatcher.complete(9, "a", OK, 4) == Dispatched()
    assert dispatcher.statistics(9).running == 0
    assert dispatcher.next_wake_ms() is None


def test_a_full_pool_holds_in_order_and_says_how_long() -> None:
    dispatcher = Dispatcher[str]()
    assert started(dispatcher.offer(0, "a", POOLED)) == ["a"]
    assert started(dispatcher.offer(0, "b", POOLED)) == ["b"]
    assert dispatcher.offer(0, "c", POOLED) == Dispatched(held=(Held("c", HeldReason.POOL),))
    assert dispatcher.offer(3, "d", POOLED) == Dispatched(held=(Held("d", HeldReason.POOL),))
    assert dispatcher.next_wake_ms() is None
    assert dispatcher.complete(7, "b", OK, 1) == Dispatched(started=(Started("c", 7),))
    assert dispatcher.complete(8, "a", FAILED, 1) == Dispatched(started=(Started("d", 5),))
    assert dispatcher.complete(9, "d", CANCELLED, 1) == Dispatched()


def test_handlers_share_a_pool_by_name_in_one_order() -> None:
    other = defined(pool=Pool("p", size=2), breaker=breaker("x"))
    dispatcher = Dispatcher[str]()
    for attempt, definition in (("a", POOLED), ("b", other), ("c", other), ("d", POOLED), ("e", other)):
        dispatcher.offer(0, attempt, definition)
    assert started(dispatcher.complete(1, "a", OK, 1)) == ["c"]
    assert started(dispatcher.complete(1, "b", OK, 1)) == ["d"]
    assert started(dispatcher.complete(1, "d", OK, 1)) == ["e"]


def test_an_open_breaker_holds_until_its_time_and_lets_probes_through() -> None:
    dispatcher = Dispatcher[str]()
    opened(dispatcher, BROKEN, now_ms=100)
    assert dispatcher.offer(200, "a", BROKEN) == Dispatched(held=(Held("a", HeldReason.BREAKER),))
    assert dispatcher.offer(300, "b", BROKEN).held == (Held("b", HeldReason.BREAKER),)
    assert dispatcher.next_wake_ms() == 10_100
    assert dispatcher.wake(10_099) == Dispatched()
    woken = dispatcher.wake(10_100)
    assert woken.started == (Started("a", 9_900),)
    assert woken.transitions == (Transition("b", 10_100, BreakerStatus.OPEN, BreakerStatus.HALF_OPEN),)
    assert dispatcher.next_wake_ms() is None  # now a probe's end decides
    assert dispatcher.statistics(10_100).held == {("", HeldReason.BREAKER): 1}
    ended = dispatcher.complete(10_200, "a", OK, 100)
    assert [each.after for each in ended.transitions] == [BreakerStatus.CLOSED]
    assert started(ended) == ["b"]


def test_a_failed_probe_holds_on() -> None:
    dispatcher = Dispatcher[str]()
    opened(dispatcher, BROKEN)
    dispatcher.offer(0, "a", BROKEN)
    dispatcher.offer(0, "b", BROKEN)
    dispatcher.wake(10_000)
    ended = dispatcher.complete(10_500, "a", FAILED, 500)
    assert [each.after for each in ended.transitions] == [BreakerStatus.OPEN]
    assert started(ended) == []
    assert dispatcher.next_wake_ms() == 20_500


def test_a_cancelled_probe_makes_room_for_the_next() -> None:
    dispatcher = Dispatcher[str]()
    opened(dispatcher, BROKEN)
    dispatcher.offer(0, "a", BROKEN)
    dispatcher.offer(0, "b", BROKEN)
    assert started(dispatcher.wake(10_000)) == ["a"]
    assert started(dispatcher.complete(10_001, "a", CANCELLED, 1)) == ["b"]


def test_a_breaker_that_says_fail_refuses_at_once_and_uses_no_attempt() -> None:
    dispatcher = Dispatcher[str]()
    opened(dispatcher, FAILING)
    offered = dispatcher.offer(5, "a", FAILING)
    assert started(offered) == []
    (refused,) = offered.refused
    assert refused.attempt == "a"
    assert (refused.error.cause, refused.error.retryable) == (Cause.BREAKER_OPEN, False)
    assert "Breaker f is open" in refused.error.message
    with pytest.raises(Fatal):
        dispatcher.complete(5, "a", FAILED, 0)
    assert dispatcher.next_wake_ms() is None
    assert started(dispatcher.offer(10_000, "probe", FAILING)) == ["probe"]
    assert "half-open" in dispatcher.offer(10_000, "b", FAILING).refused[0].error.message


def test_a_breaker_that_opens_refuses_those_who_wait_for_a_pool_behind_it() -> None:
    both = defined(pool=Pool("q", size=2), breaker=breaker("f", on_open="fail"))
    dispatcher = Dispatcher[str]()
    for attempt in "abcd":
        dispatcher.offer(0, attempt, both)
    assert started(dispatcher.complete(1, "a", FAILED, 1)) == ["c"]
    ended = dispatcher.complete(2, "b", FAILED, 1)
    assert started(ended) == []
    assert [(each.attempt, each.held_ms) for each in ended.refused] == [("d", 2)]


def test_those_whom_a_breaker_blocks_let_others_pass_to_their_pool() -> None:
    dispatcher = Dispatcher[str]()
    opened(dispatcher, BOTH)
    assert dispatcher.offer(1, "blocked", BOTH).held == (Held("blocked", HeldReason.BREAKER),)
    assert started(dispatcher.offer(2, "passes", POOLED)) == ["passes"]


def test_no_wake_is_asked_for_while_the_pool_is_full() -> None:
    dispatcher = Dispatcher[str]()
    opened(dispatcher, BOTH)
    dispatcher.offer(1, "blocked", BOTH)
    assert dispatcher.next_wake_ms() == 10_000
    dispatcher.offer(2, "x", POOLED)
    dispatcher.offer(2, "y", POOLED)
    assert dispatcher.next_wake_ms() is None
    assert dispatcher.wake(10_000) == Dispatched()
    assert dispatcher.statistics(10_000).held == {("", HeldReason.POOL): 1}
    assert started(dispatcher.complete(10_001, "x", OK, 1)) == ["blocked"]


def test_a_rate_limit_holds_in_order_until_tokens_come_back() -> None:
    dispatcher = Dispatcher[str]()
    for attempt in "ab":
        assert started(dispatcher.offer(100, attempt, LIMITED)) == [attempt]
    for attempt in "cde":
        assert dispatcher.offer(100, attempt, LIMITED) == Dispatched(held=(Held(attempt, HeldReason.LIMIT),))
    assert dispatcher.complete(101, "a", OK, 1) == Dispatched()  # an end brings no token
    assert dispatcher.statistics(101).held == {("", HeldReason.LIMIT): 3}
    assert dispatcher.next_wake_ms() == 5_100
    assert dispatcher.wake(5_099) == Dispatched()
    assert dispatcher.wake(5_100) == Dispatched(started=(Started("c", 5_000),))
    assert dispatcher.remove("d")
    assert dispatcher.next_wake_ms() == 10_100
    assert started(dispatcher.wake(10_100)) == ["e"]
    assert dispatcher.next_wake_ms() is None


def test_a_token_that_has_come_is_not_taken_by_whoever_offers_first() -> None:
    pooled = defined(pool=Pool("p", size=1), rate_limit=RateLimit("l", limit=2, per="10s"))
    dispatcher = Dispatcher[str]()
    for attempt in "abc":
        dispatcher.offer(0, attempt, LIMITED)
    assert dispatcher.offer(6_000, "d", pooled) == Dispatched(
        started=(Started("c", 6_000),), held=(Held("d", HeldReason.LIMIT),)
    )


def test_a_token_is_taken_only_by_who_begins() -> None:
    """Neither a full pool nor an open breaker wastes one; the next wake is when all of them let the head through."""
    limit = RateLimit("l", limit=1, per="1s", burst=3)
    pooled, broken = defined(pool=Pool("p", size=1), rate_limit=limit), defined(breaker=breaker(), rate_limit=limit)
    dispatcher = Dispatcher[str]()
    opened(dispatcher, broken)
    assert started(dispatcher.offer(0, "a", pooled)) == ["a"]
    assert dispatcher.offer(0, "b", pooled).held == (Held("b", HeldReason.POOL),)
    assert dispatcher.offer(0, "c", broken).held == (Held("c", HeldReason.BREAKER),)
    assert dispatcher.statistics(1_500).limits[0].tokens == 1
    assert dispatcher.next_wake_ms() == 10_000
    assert started(dispatcher.complete(1_500, "a", OK, 1)) == ["b"]
    assert dispatcher.statistics(1_500).limits[0].begun == 4


def test_a_held_attempt_can_be_removed() -> None:
    dispatcher = Dispatcher[str]()
    for attempt in "abcd":
        dispatcher.offer(0, attempt, POOLED, workflow="w")
    assert dispatcher.remove("c")
    assert not dispatcher.remove("c")
    assert not dispatcher.remove("a")  # it runs
    assert dispatcher.statistics(0).held == {("w", HeldReason.POOL): 1}
    assert started(dispatcher.complete(1, "a", OK, 1)) == ["d"]
    assert dispatcher.statistics(1).held == {}
    assert started(dispatcher.offer(1, "c", FREE)) == ["c"]  # its id is free again


def test_statistics_count_by_workflow_and_reason() -> None:
    dispatcher = Dispatcher[str]()
    opened(dispatcher, BROKEN)
    for number in range(4):
        dispatcher.offer(0, f"p{number}", POOLED, workflow="shop")
    dispatcher.offer(0, "b0", BROKEN, workflow="shop")
    dispatcher.offer(0, "b1", BROKEN, workflow="bank")
    shown = dispatcher.statistics(0)
    assert shown.running == 2
    assert shown.held == {
        ("shop", HeldReason.POOL): 2,
        ("shop", HeldReason.BREAKER): 1,
        ("bank", HeldReason.BREAKER): 1,
    }
    assert [(each.name, each.in_use) for each in shown.pools] == [("p", 2)]
    assert [(each.name, each.status) for each in shown.breakers] == [("b", BreakerStatus.OPEN)]


def test_an_attempt_is_offered_and_ended_once() -> None:
    dispatcher = Dispatcher[str]()
    for attempt in "abc":
        dispatcher.offer(0, attempt, POOLED)
    for attempt in "ac":
        with pytest.raises(Fatal, match="twice"):
            dispatcher.offer(0, attempt, FREE)
    for attempt in "cx":
        with pytest.raises(Fatal, match="does not run"):
            dispatcher.complete(0, attempt, OK, 1)


def test_the_same_name_with_other_settings_is_refused() -> None:
    dispatcher = Dispatcher[str]()
    dispatcher.register(BOTH)
    with pytest.raises(DefinitionError):
        dispatcher.register(defined(pool=Pool("p", size=3)))
    with pytest.raises(DefinitionError):
        dispatcher.offer(0, "a", defined(breaker=breaker(window=3)))
    dispatcher.register(LIMITED)
    with pytest.raises(DefinitionError):
        dispatcher.register(defined(rate_limit=RateLimit("l", limit=2, per="9s")))
    assert dispatcher.statistics(0).running == 0


def test_a_burst_of_held_attempts_drains_in_order() -> None:
    dispatcher = Dispatcher[int]()
    count = 20_000
    for number in range(count):
        dispatcher.offer(0, number, POOLED, workflow=f"w{number % 3}")
    running, order = [0, 1], [0, 1]
    while running:
        ended = dispatcher.complete(1, running.pop(0), OK, 1)
        for each in ended.started:
            running.append(each.attempt)
            order.append(each.attempt)
    assert order == list(range(count))
    assert dispatcher.statistics(1).held == {}


def test_a_burst_behind_an_open_breaker_starts_together_when_it_closes() -> None:
    dispatcher = Dispatcher[str]()
    opened(dispatcher, BROKEN)
    names = [f"n{number}" for number in range(20_000)]
    for name in names:
        dispatcher.offer(0, name, BROKEN)
    assert started(dispatcher.wake(10_000)) == names[:1]
    assert started(dispatcher.complete(10_001, names[0], OK, 1)) == names[1:]


def error(cause: Cause, *, ignored: bool = False) -> AttemptError:
    return AttemptError(cause=cause, error="E", message="", retryable=True, ignored_by_breaker=ignored, duration_ms=1.0)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (AttemptOk(b"1", 1.0), CallOutcome.SUCCEEDED),
        (AttemptCancelled(1.0), CallOutcome.CANCELLED),
        (error(Cause.RAISED), CallOutcome.FAILED),
        (error(Cause.TIMED_OUT), CallOutcome.FAILED),
        (error(Cause.CANCELLED_ITSELF), CallOutcome.FAILED),
        (error(Cause.RAISED, ignored=True), CallOutcome.IGNORED),
        (error(Cause.BAD_RESULT), CallOutcome.SUCCEEDED),
        (error(Cause.TOO_LARGE), CallOutcome.SUCCEEDED),
    ],
)
def test_how_a_breaker_sees_an_end(end: AttemptEnd, outcome: CallOutcome) -> None:
    assert outcome_of(end) is outcome
