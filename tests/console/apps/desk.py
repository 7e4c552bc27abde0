"""Runs for a reader to look at: one that ends well after a retry, one that fails, those that wait."""

from dataclasses import dataclass

from headrace import EventTrigger, NonRetryable, Retry, Run, Schedule, Tick, current_attempt, handler, workflow


@dataclass
class Letter:
    id: str
    text: str
    then: str = "end"
    number: int = 0


@handler(retry=Retry(attempts=3, delay="20ms"))
async def stamp(letter: Letter) -> str:
    if current_attempt().number == 1:
        raise ConnectionError(f"no ink for {letter.text}")
    return f"stamped {letter.text}"


@handler(retry=Retry(attempts=1))
async def refuse(letter: Letter) -> None:
    raise NonRetryable(f"refused: {letter.text}")


@workflow(on=EventTrigger("letters", "letter.written"), key=lambda letter: letter.id)
async def post(run: Run, letter: Letter) -> str:
    """Stamp a letter, then do as it says."""
    stamped = await run.call(stamp, letter)
    if letter.then == "wait":
        await run.sleep("1h")
    if letter.then == "fail":
        await run.call(refuse, letter)
    if letter.then == "ask":
        decision = await run.approval(roles=["postmaster"], title=f"Send {letter.text}?")
        return f"{decision.decision} by {decision.by}: {decision.note}"
    return stamped


@workflow(on=Schedule(every="1000h"))
async def empty_the_box(run: Run, tick: Tick) -> str:
    """Hardly ever by the clock: a reader starts it."""
    return "emptied"
