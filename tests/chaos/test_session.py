"""A session whose load or recorder is gone says so at once: what it would find says nothing."""

import asyncio
import os
from collections.abc import Sequence

import pytest

from tests.chaos import load as load_module
from tests.chaos import session as session_module
from tests.chaos.load import EmbeddedDoor
from tests.chaos.program import Job
from tests.chaos.recorder import At
from tests.chaos.session import Place, Session, Stuck


async def _for_ever(*_: object) -> None:
    await asyncio.Event().wait()


async def test_a_load_that_stands_still_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "_PUT_S", 3600.0)
    hangs = asyncio.Event()

    async def hang(*_: object) -> None:
        hangs.set()
        await _for_ever()

    async def line() -> None:
        async with Session(Place(), seed=1) as session:
            await session.spawn().ready()
            async with session.load(ahead=5) as load:
                await session.works(5)
                monkeypatch.setattr(EmbeddedDoor, "put", hang)
                await hangs.wait()
                load.turned_at -= session_module.STUCK_S  # as if for so long already
                await _for_ever()

    with pytest.raises(Stuck, match="the load stands still"):
        await line()


async def test_puts_that_hang_are_doubtful_and_the_load_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than it may be ahead: what is not in will never be done."""
    monkeypatch.setattr(load_module, "_PUT_S", 0.2)
    put = EmbeddedDoor.put
    async with Session(Place(), seed=1) as session:
        await session.spawn().ready()
        async with session.load(ahead=2) as load, asyncio.timeout(60):
            await session.works(5)
            monkeypatch.setattr(EmbeddedDoor, "put", _for_ever)
            while load.doubtful < 3:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(EmbeddedDoor, "put", put)
            acknowledged = len(load.acknowledged)
            while len(load.acknowledged) == acknowledged:
                await asyncio.sleep(0.01)


async def test_a_look_at_the_positions_does_not_depend_on_what_the_recorder_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Session(Place(), seed=1) as session:
        monkeypatch.setattr(session.recorder, "refresh", _for_ever)
        await session.spawn().ready()
        async with session.load(ahead=5):
            await session.works(5)
            while not any(position.committed[at] for position in session.positions[-1:] for at in position.committed):
                await session.look_at_positions()
        assert len(session.positions[-1].ends) == session.partitions
        assert all(session.positions[-1].ends.values())


async def test_work_that_begins_while_it_is_looked_for_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is read, the job is routed, the position is read: the positions say that all is done, and the log no more than nothing."""
    async with Session(Place(), seed=1) as session:
        await session.spawn().ready()
        source = session.recorder.source
        ends, committed = source.ends, source.committed

        async def once_all_is_routed(group: str, at: Sequence[At]) -> dict[At, int]:
            wanted = await ends(at)
            while (found := await committed(group, at)) != wanted:
                await asyncio.sleep(0.01)
            return found

        monkeypatch.setattr(source, "committed", once_all_is_routed)
        load = session.load()
        await session.recorder.refresh()
        await load.put(Job(id="j", group="g", program=(("nap", 1_500, 0),)))
        load.acknowledged.clear()  # as if its answer had been lost
        assert (await session.verdict()).violations == []


async def test_a_recorder_that_ends_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise OSError(os.strerror(5))

    async def line() -> None:
        async with Session(Place(), seed=1) as session:
            monkeypatch.setattr(session.recorder, "refresh", broken)
            await _for_ever()

    with pytest.raises(Stuck, match="the recorder ended"):
        await line()
