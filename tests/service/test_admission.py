"""Admission: slots, turns, shares, and the gate that routers wait at."""

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.service import admission as admission_file
from headrace.service.admission import Admission

MANY = 10**9
A_TURN = admission_file._A_TURN
OUTSTANDING = admission_file.OUTSTANDING
INTAKE_RUNS = admission_file._INTAKE_RUNS


async def turns(count: int = 40) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Desk:
    """Asks for runs named `<workflow><number>`, and notes who began."""

    def __init__(self, max_active: int, max_queued_bytes: int = MANY) -> None:
        self.admission = Admission(max_active, max_queued_bytes)
        self.begun: list[str] = []

    def ask(self, *runs: str, size: int = 1) -> None:
        for run in runs:
            self.admission.ask(run, run[0], size, self.begun.append)

    @property
    def is_open(self) -> bool:
        return not self.admission.pauses("")


async def test_runs_begin_at_once_while_there_is_room_then_in_the_order_in_which_they_asked() -> None:
    desk = Desk(max_active=2)
    desk.ask("a0", "a1", "a2", "a3")
    assert desk.begun == ["a0", "a1"]
    desk.admission.idle("a1")
    assert desk.begun == ["a0", "a1", "a2"]
    desk.admission.idle("a1")  # idle is said as often as one likes
    assert desk.begun == ["a0", "a1", "a2"]
    assert (desk.admission.active_runs, desk.admission.waiting_runs) == (2, 1)


async def test_one_workflow_takes_at_most_half_while_others_wait() -> None:
    desk = Desk(max_active=4)
    desk.ask("a0", "a1", "a2", "a3", "a4", "a5")  # alone, it takes all
    assert desk.begun == ["a0", "a1", "a2", "a3"]
    desk.ask("b0", "b1", "b2")
    desk.admission.idle("a0")
    desk.admission.idle("a1")
    assert desk.begun[4:] == ["b0", "b1"]
    desk.admission.idle("a2")  # a has one slot, b its half
    assert desk.begun[6:] == ["a4"]
    desk.admission.idle("b0")
    assert desk.begun[7:] == ["b2"]


async def test_workflows_take_turns() -> None:
    desk = Desk(max_active=1)
    desk.ask("x0", "a0", "a1", "b0", "b1", "c0")
    for run in ("x0", "a0", "b0", "c0", "a1"):
        desk.admission.idle(run)
    assert sorted(desk.begun[1:4]) == ["a0", "b0", "c0"]


async def test_with_one_slot_everybody_gets_it() -> None:
    desk = Desk(max_active=1)
    desk.ask("a0", "a1", "b0")
    for _ in range(3):
        desk.admission.idle(desk.begun[-1])
    assert set(desk.begun) == {"a0", "a1", "b0"}


async def test_nobody_new_while_many_outcomes_are_on_their_way() -> None:
    desk = Desk(max_active=10)
    desk.admission.outstanding = OUTSTANDING
    desk.ask("a0", "a1")
    await turns()
    assert desk.begun == []
    desk.admission.outstanding -= 1
    desk.admission.read_back()
    assert desk.begun == ["a0", "a1"]


async def test_few_in_one_turn_of_the_loop_and_all_of_them_in_the_end() -> None:
    desk = Desk(max_active=10_000)
    desk.ask(*(f"a{n}" for n in range(3 * A_TURN + 1)))
    assert len(desk.begun) == A_TURN
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert A_TURN < len(desk.begun) <= 3 * A_TURN
    await turns()
    assert desk.begun == [f"a{n}" for n in range(3 * A_TURN + 1)]


async def test_who_works_again_counts_even_where_there_is_no_room() -> None:
    desk = Desk(max_active=1)
    desk.ask("a0")
    desk.admission.idle("a0")
    desk.ask("a1", "a2")
    desk.admission.active("a0", "a")
    assert desk.admission.active_runs == 2
    desk.admission.idle("a1")
    assert desk.begun == ["a0", "a1"]  # a0 has the slot
    desk.admission.idle("a0")
    assert desk.begun == ["a0", "a1", "a2"]


async def test_a_run_that_begins_and_is_idle_at_once_gives_its_slot_on() -> None:
    admission = Admission(1, MANY)
    begun: list[str] = []

    def begin(run: str) -> None:
        begun.append(run)
        admission.idle(run)

    for n in range(A_TURN * 2):
        admission.ask(f"a{n}", "a", 1, begin)
    await turns()
    assert begun == [f"a{n}" for n in range(A_TURN * 2)]
    assert admission.active_runs == 0


async def test_forgotten_runs_neither_work_nor_wait_and_others_go_on() -> None:
    desk = Desk(max_active=2)
    desk.ask("a0", "a1", "a2", "a3", "b0")
    desk.admission.forget({"a0", "a2", "a3"})
    assert desk.begun == ["a0", "a1", "b0"]
    assert desk.admission.waiting_runs == desk.admission.waiting_bytes == 0
    desk.ask("b1", "c0")
    desk.admission.idle("a1")
    desk.admission.idle("b0")
    assert set(desk.begun[3:]) == {"b1", "c0"}


async def test_a_workflow_whose_waiting_runs_were_all_forgotten_is_no_stumbling_block() -> None:
    desk = Desk(max_active=1)
    desk.ask("a0", "b0", "c0", "d0")
    desk.admission.forget({"b0"})
    desk.admission.idle("a0")
    desk.admission.idle(desk.begun[-1])
    assert set(desk.begun) == {"a0", "c0", "d0"}


async def test_none_of_the_forgotten_begins_in_place_of_another() -> None:
    desk = Desk(max_active=1)
    desk.ask("a0", "a1", "a2")
    desk.admission.forget({"a0", "a1"})
    assert desk.begun == ["a0", "a2"]


async def test_intake_closes_by_count_and_opens_again() -> None:
    desk = Desk(max_active=1)
    desk.ask(*(f"a{n}" for n in range(INTAKE_RUNS)))
    assert desk.is_open
    desk.ask("a-last")
    assert not desk.is_open
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.admission.intake())
        await turns(3)
        desk.admission.idle("a0")


async def test_intake_closes_by_bytes_and_opens_again() -> None:
    desk = Desk(max_active=1, max_queued_bytes=100)
    desk.ask("a0", "a1", size=99)
    assert desk.is_open
    desk.ask("a2", size=1)
    assert not desk.is_open
    desk.admission.forget({"a1"})
    assert desk.is_open


async def test_starts_that_wait_for_their_key_pause_nobody_before_they_are_a_great_many() -> None:
    desk = Desk(max_active=1, max_queued_bytes=10)
    desk.admission.keep("a1", 100)
    desk.admission.keep("a1", 100)
    assert desk.is_open
    desk.admission.keep("a2", 60)
    assert not desk.is_open
    assert not desk.admission.pauses("other")
    desk.admission.keep_no_more("a1")
    desk.admission.keep_no_more("a1")
    assert desk.is_open
    desk.admission.keep("a3", 160)
    assert not desk.is_open
    desk.admission.forget({"a2", "a3"})
    assert desk.is_open
    assert desk.admission.kept_bytes == 0


async def test_only_topics_that_feed_the_backlog_wait() -> None:
    admission = Admission(1, 100)
    begun: list[str] = []
    for run, topic in (("a0", "orders"), ("a1", "orders"), ("a2", "orders")):
        admission.ask(run, "a", 50, begun.append, topic=topic)
    assert admission.full
    assert admission.pauses("orders")
    assert not admission.pauses("payments")
    assert admission.backlog == {"orders": 100}
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(admission.intake("orders"))
        await admission.intake("payments")
        await turns(3)
        assert not waiting.done()
        admission.idle("a0")
    assert begun == ["a0", "a1"]


async def test_topics_that_feed_an_owner_elsewhere_wait_too() -> None:
    admission = Admission(1, 100)
    admission.pause_elsewhere(frozenset({"orders"}))
    assert (admission.pauses("orders"), admission.pauses("payments")) == (True, False)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(admission.intake("orders"))
        await turns(3)
        assert not waiting.done()
        admission.pause_elsewhere(frozenset())


async def test_the_oldest_start_comes_first_whoever_asked_first() -> None:
    admission = Admission(1, MANY)
    begun: list[str] = []
    admission.ask("a0", "a", 1, begun.append, started_at_ms=50)
    for run, at_ms in (("a1", 40), ("a2", 10), ("a3", 30)):
        admission.ask(run, "a", 1, begun.append, started_at_ms=at_ms)
    for run in ("a0", "a2", "a3"):
        admission.idle(run)
    assert begun == ["a0", "a2", "a3", "a1"]


async def test_a_workflow_that_hangs_alone_leaves_room_for_others() -> None:
    desk = Desk(max_active=80)
    desk.ask(*(f"a{n}" for n in range(100)))
    await turns()
    assert len(desk.begun) == 70  # seven eighths
    desk.ask(*(f"b{n}" for n in range(20)))
    assert 0 < sum(run[0] == "b" for run in desk.begun) < 10
    desk.ask("c0")
    assert desk.begun[-1] == "c0"  # there is always one more


async def test_a_workflow_that_hangs_does_not_close_the_topic_for_others_before_its_starts_take_memory() -> None:
    desk = Desk(max_active=80, max_queued_bytes=10_000)
    desk.ask("b0")
    desk.ask(*(f"a{n}" for n in range(INTAKE_RUNS + 100)))
    await turns()
    assert desk.admission.waiting_runs >= INTAKE_RUNS
    assert desk.is_open
    desk.ask("a-large", size=10_000)
    assert not desk.is_open


async def test_while_nobody_may_begin_nothing_turns() -> None:
    desk = Desk(max_active=80)
    desk.ask(*(f"a{n}" for n in range(100)))
    await turns()
    looked = 0
    read_back = desk.admission.read_back

    def counted() -> None:
        nonlocal looked
        looked += 1
        read_back()

    desk.admission.read_back = counted
    desk.admission.idle("unknown")
    desk.ask("a-more")
    await turns()
    assert looked <= 1


async def test_who_wakes_up_comes_first_and_takes_no_slot_before_it_works() -> None:
    desk = Desk(max_active=1)
    desk.ask("a0", "a1")
    desk.admission.wake("w", desk.begun.append)
    assert desk.begun == ["a0"]
    desk.admission.idle("a0")
    assert desk.begun == ["a0", "w", "a1"]
    desk.admission.wake("v", desk.begun.append)
    desk.admission.forget({"v"})
    desk.admission.idle("a1")
    assert desk.begun == ["a0", "w", "a1"]


async def test_what_lies_in_the_log_alone_does_not_count_against_memory() -> None:
    admission = Admission(1, 100)
    for run in ("a0", "a1", "a2"):
        admission.ask(run, "a", 60, lambda _run: None)
    assert admission.over_budget
    admission.left_bytes += 60
    assert not admission.over_budget
    admission.keep("b", 60)
    assert admission.over_budget


runs = st.builds(lambda workflow, n: f"{workflow}{n}", st.sampled_from("abc"), st.integers(0, 30))
moves = st.one_of(
    st.tuples(st.just("ask"), runs),
    st.tuples(st.just("idle"), runs),
    st.tuples(st.just("active"), runs),
    st.tuples(st.just("forget"), st.frozensets(runs, max_size=12)),
    st.tuples(st.just("outstanding"), st.sampled_from([0, OUTSTANDING])),
    st.tuples(st.just("turn"), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.lists(moves, max_size=60))
def test_nothing_leaks_and_nobody_is_left_waiting(max_active: int, steps: list[tuple[str, Any]]) -> None:
    asyncio.run(_play(max_active, steps))


async def _play(max_active: int, steps: list[tuple[str, Any]]) -> None:
    desk = Desk(max_active, max_queued_bytes=8)
    admission = desk.admission
    asked: list[str] = []  # and neither begun nor forgotten
    works: set[str] = set()
    begun = 0

    def catch_up() -> None:
        nonlocal begun
        for run in desk.begun[begun:]:
            assert run == next(each for each in asked if each[0] == run[0])  # in its workflow's order
            asked.remove(run)
            works.add(run)
        begun = len(desk.begun)

    for kind, what in steps:
        match kind:
            case "ask" if what not in asked and what not in works:
                asked.append(what)
                desk.ask(what)
            case "idle":
                works.discard(what)
                admission.idle(what)
            case "active" if what not in asked:
                works.add(what)
                admission.active(what, what[0])
            case "forget":
                asked[:] = [run for run in asked if run not in what]
                works -= what
                admission.forget(set(what))
            case "outstanding":
                admission.outstanding = what
                admission.read_back()
            case "turn":
                await asyncio.sleep(0)
            case _:
                pass
        catch_up()
        assert admission.active_runs == len(works)
        assert admission.waiting_runs == admission.waiting_bytes == len(asked)
        assert +admission._share == Counter(run[0] for run in works)
        assert desk.is_open == (len(asked) < 8)
        if asked and admission.outstanding == 0:
            await turns(3)
            catch_up()
            assert not asked or len(works) >= max_active
    admission.outstanding = 0
    admission.read_back()
    while works or asked:  # everybody's turn comes
        catch_up()
        for run in list(works):
            works.discard(run)
            admission.idle(run)
        await turns(3)
        catch_up()
    assert desk.is_open
    assert admission.active_runs == admission.waiting_runs == 0
