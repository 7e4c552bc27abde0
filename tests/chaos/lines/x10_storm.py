"""X10: a worker joins or leaves every 2 s; work goes on."""

import time

import anyio

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Session

_SECONDS = {Scale.CI: 8.0, Scale.FULL: 40.0, Scale.LONG: 600.0}
_EVERY_S = 2.0
_CALM_S = {Scale.CI: 1.0, Scale.FULL: 10.0, Scale.LONG: 30.0}
_TURNS = ("join", "leave", "join", "kill")
_PROGRESS_MIN = 0.5


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """Two workers stay; a third one comes and goes, in order or not. Runs a second, before and during."""
    async with Session(await bench.place(), seed=seed) as session:
        await session.spawn().ready()
        await session.spawn().ready()
        async with session.load(ahead=60, rate=None):
            await session.works(100)
            calm = await _rate(session, _CALM_S[scale])
            done, began, turn = session.run_log.done, time.monotonic(), 0
            while time.monotonic() < began + _SECONDS[scale]:
                async with session.fault(_TURNS[turn % 4]) as hit:
                    hit.fired = session.busy()
                    if turn % 2 == 0:
                        session.spawn()
                    elif turn % 4 == 1:
                        session.now.terminate()
                    else:
                        session.now.kill()
                    await anyio.sleep(_EVERY_S)  # the storm's own beat
                turn += 1
            await session.recorder.refresh()
            stormy = (session.run_log.done - done) / (time.monotonic() - began)
        verdict = await session.verdict()
        tally.note("runs_a_second_calm", round(calm, 1))
        tally.note("runs_a_second_in_the_storm", round(stormy, 1))
        if scale is not Scale.CI and stormy < _PROGRESS_MIN * calm:
            tally.violations.append(f"X10: {stormy:.1f} runs a second in the storm, {calm:.1f} before")
        tally.add(session, verdict)


async def _rate(session: Session, seconds: float) -> float:
    await session.recorder.refresh()
    done, began = session.run_log.done, time.monotonic()
    await anyio.sleep(seconds)
    await session.recorder.refresh()
    return (session.run_log.done - done) / (time.monotonic() - began)
