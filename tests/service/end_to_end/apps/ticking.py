"""Runs that the clock starts, and nothing else: there is no source topic."""

from headrace import Run, Schedule, Tick, handler, workflow


@handler
async def note(tick: Tick) -> float:
    return tick.scheduled_at.timestamp()


@workflow(on=Schedule(every="1s", misfire="all"))
async def each(run: Run, tick: Tick) -> float:
    return await run.call(note, tick)


@workflow(on=Schedule("* * * * * *", timezone="Europe/Berlin"))
async def newest(run: Run, tick: Tick) -> float:
    return await run.call(note, tick)


@workflow(on=Schedule(every="1s", overlap="skip"))
async def one_at_a_time(run: Run, nothing: None) -> None:
    await run.sleep("1500ms")
