"""Whose turn it is to be woken on trial."""

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from headrace.service import probes
from headrace.service.probes import Probes
from tests.service.shell import until


@pytest.fixture(autouse=True)
def no_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "QUIET_S", 0.0)


async def turns() -> None:
    """Timers that are due have rung."""
    for _ in range(3):
        await asyncio.sleep(0)


class Order:
    def __init__(self) -> None:
        self.probes = Probes()
        self.began: list[str] = []

    def ask(self, run: str, strikes: int = 0) -> None:
        self.probes.ask(run, strikes, lambda: self.began.append(run))


async def read(order: Order, alone: AbstractAsyncContextManager[None]) -> None:
    """Read a record, once it may be."""
    async with alone:
        order.began.append("record")


async def test_unstruck_runs_are_tried_a_few_at_a_time() -> None:
    order = Order()
    for n in range(100):
        order.ask(f"r{n}")
    assert order.began == [f"r{n}" for n in range(16)]
    order.probes.over("r3")
    assert order.began[16:] == ["r16"]


async def test_struck_runs_are_tried_alone_after_all_others_the_least_struck_first() -> None:
    order = Order()
    order.ask("twice", 2)
    order.ask("once", 1)
    order.ask("also once", 1)
    order.ask("fine")
    await turns()
    assert order.began == ["fine"]
    for run in ("fine", "once", "also once", "twice"):
        assert order.began[-1] == run
        order.probes.over(run)
    assert not order.probes.open


async def test_nobody_joins_a_run_that_is_tried_alone() -> None:
    order = Order()
    order.ask("struck", 1)
    await turns()
    order.ask("fine")
    assert order.began == ["struck"]
    order.probes.over("struck")
    assert order.began == ["struck", "fine"]


async def test_a_partition_that_is_given_away_makes_room() -> None:
    order = Order()
    order.ask("struck", 1)
    await turns()
    order.ask("mine")
    order.ask("theirs")
    order.probes.forget({"struck", "theirs", "unknown"})
    assert order.began == ["struck", "mine"]
    order.probes.forget({"mine"})
    assert not order.probes.open
    order.probes.over("mine")


async def test_what_is_over_at_once_lets_the_next_one_begin() -> None:
    probes = Probes()
    began: list[int] = []

    def begin(n: int) -> None:
        began.append(n)
        probes.over(f"r{n}")

    for n in range(40):
        probes.ask(f"r{n}", n % 3, lambda n=n: begin(n))
    await turns()
    assert sorted(began) == list(range(40))


async def test_a_struck_run_waits_some_time_for_each_strike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "QUIET_S", 3_600.0)
    order = Order()
    order.ask("struck", 1)
    order.ask("fine")
    await turns()
    assert order.began == ["fine"]
    order.probes.over("fine")
    await turns()
    assert order.began == ["fine"]
    order.probes.forget({"struck"})


async def test_no_run_is_tried_alone_while_records_are_read_with_care() -> None:
    order = Order()
    async with order.probes.none_alone():
        order.ask("struck", 1)
        order.ask("fine")
        await turns()
        order.probes.over("fine")
        assert order.began == ["fine"]
    assert order.began == ["fine", "struck"]


async def test_records_are_read_with_care_when_no_run_is_tried_alone_any_more() -> None:
    order = Order()
    order.ask("struck", 1)
    await turns()
    async with asyncio.TaskGroup() as group:
        group.create_task(read(order, order.probes.none_alone()))
        await turns()
        order.ask("more", 1)
        order.ask("fine")
        assert order.began == ["struck"]
        order.probes.over("struck")
    assert order.began == ["struck", "fine", "record"]
    order.probes.over("fine")
    assert order.began[-1] == "more"


async def test_a_record_on_trial_waits_for_every_run_on_trial_and_they_for_it() -> None:
    order = Order()
    for run in ("a", "b"):
        order.ask(run)
    async with asyncio.TaskGroup() as group:
        group.create_task(read(order, order.probes.none()))
        await turns()
        order.ask("c")
        order.probes.over("a")
        await turns()
        assert order.began == ["a", "b"]
        order.probes.forget({"b"})
    assert order.began == ["a", "b", "record", "c"]


async def test_records_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PATIENCE_S", 0.01)
    order = Order()
    order.ask("slow")
    await read(order, order.probes.none())
    assert order.began == ["slow", "record"]
    assert list(order.probes.open) == ["slow"]


async def test_runs_do_not_wait_for_ever_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a source has to note or to send may be refused for hours."""
    monkeypatch.setattr(probes, "HOLD_S", 0.01)
    order = Order()
    async with order.probes.none_alone(), order.probes.none():
        order.ask("struck", 1)
        order.ask("fine")
        assert order.began == []
        await until(lambda: order.began)
        order.probes.over("fine")
        await until(lambda: len(order.began) == 2)
    assert order.began == ["fine", "struck"]


async def test_who_gives_up_waiting_holds_nobody_back() -> None:
    order = Order()
    order.ask("a")
    async with asyncio.TaskGroup() as group:
        trial = group.create_task(read(order, order.probes.none()))
        await turns()
        order.ask("b")
        trial.cancel()
    assert order.began == ["a", "b"]
    order.ask("struck", 1)
    await turns()
    order.probes.over("a")
    order.probes.over("b")
    assert order.began == ["a", "b", "struck"]
