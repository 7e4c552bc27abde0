"""Dead letters: what could not be dealt with, and what is done about it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from headrace.service.api.asked_values import body_as, invalid_body, limit_of, since_ms, wrong_parameter
from headrace.service.api.cursor import place_in
from headrace.service.api.listing import Behind, page_of
from headrace.service.api.route import Answer, Asked
from headrace.service.api.run_routes import PATIENCE_S
from headrace.service.letters.book import NOT_RESOLVED, OPEN_STATES, STATE_WORDS, LetterState
from headrace.service.letters.redrive import By, Progress, redrive_many, redrive_one
from headrace.service.letters.resolve import Resolved
from headrace.service.letters.resolve import resolve as resolved_of
from headrace.service.letters.view import DeadLetterView, LetterCount, LetterFilter
from headrace.topics.dead_letter import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.service.api.facade import Facade
    from headrace.topics.log import TopicPartition

_IDS_MAX = 1_000
_AHEAD = 200  # letters that may have come, or been dealt with, since the page before


class LetterList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of dead letters, newest first."""

    items: tuple[DeadLetterView, ...]
    next: str | None
    notes: tuple[str, ...] = ()


class LetterCountList(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters by topic, stage, code and workflow."""

    items: tuple[LetterCount, ...]
    next: None = None


class LetterChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters; what is left out may be anything."""

    topic: str | None = None
    stage: str | None = None
    code: str | None = None
    workflow: str | None = None
    since: str | None = None
    state: str | None = None


class LetterRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dead letters by `ids` or by `filter`, one of both. `again`: also what was redriven or resolved before: it starts its runs once more."""

    ids: tuple[str, ...] = ()
    filter: LetterChoice | None = None
    again: bool = False
    by: str = "api"
    note: str = ""


async def list_letters(facade: Facade, asked: Asked) -> Answer:
    """GET dead-letters."""
    choice = LetterChoice(
        **{name: asked.query[name] for name in LetterChoice.__struct_fields__ if asked.query.get(name)}
    )
    limit, behind = limit_of(asked), place_in(asked.query.get("cursor"), Behind)
    most = limit + 1 + (0 if behind is None else max(0, behind.seen) + _AHEAD)
    found = await facade.shared.letters.newest(_filter(facade, choice, OPEN_STATES), most)
    page, after = page_of(found, [view.at for view in found], behind, limit)
    return Answer(body=LetterList(items=page, next=after))


async def get_letter(facade: Facade, asked: Asked) -> Answer:
    """GET dead-letters/{topic}/{partition}/{offset}."""
    path = asked.path
    found = await facade.shared.letters.get(f"{path['topic']}/{path['partition']}/{path['offset']}")
    return Answer(body=found)


async def count_letters(facade: Facade, _asked: Asked) -> Answer:
    """GET dead-letters/stats."""
    counts = await facade.shared.letters.counts(_filter(facade, LetterChoice(), frozenset(LetterState)))
    return Answer(body=LetterCountList(items=tuple(counts)))


async def redrive_letters(facade: Facade, asked: Asked) -> Answer:
    """POST dead-letters/redrive. One that cannot be is an error; of many, as many as can be done in a while."""
    request, letters = _request(facade, asked), facade.shared.letters
    who = By(request.by, request.note)
    if len(request.ids) == 1:
        await redrive_one(letters, request.ids[0], who, again=request.again)
        return Answer(body=Progress(selected=1, redriven=1))
    selected = await _selected(facade, request, frozenset(LetterState) if request.again else OPEN_STATES)
    progress = Progress(selected=sum(map(len, selected.values())))
    asked.slot.release()
    ends = asyncio.get_running_loop().time() + PATIENCE_S
    async with aclosing(redrive_many(letters, selected, who, again=request.again)) as steps:
        async for step in steps:
            progress = step
            if asyncio.get_running_loop().time() > ends or facade.stopping.done():
                break
    return Answer(body=progress)


async def resolve_letters(facade: Facade, asked: Asked) -> Answer:
    """POST dead-letters/resolve."""
    request, letters = _request(facade, asked), facade.shared.letters
    selected = await _selected(facade, request, NOT_RESOLVED)
    done = Resolved(selected=sum(map(len, selected.values())))
    asked.slot.release()
    async with aclosing(resolved_of(letters, selected, By(request.by, request.note))) as steps:
        async for step in steps:
            done = step
    return Answer(body=done)


def _request(facade: Facade, asked: Asked) -> LetterRequest:
    request = body_as(asked, LetterRequest, nesting_max=facade.settings.limits.nesting)
    if bool(request.ids) == (request.filter is not None):
        raise invalid_body("it has `ids` or `filter`, one of both.")
    if len(request.ids) > _IDS_MAX:
        raise invalid_body(f"it has more than {_IDS_MAX} ids.")
    return request


async def _selected(
    facade: Facade, request: LetterRequest, states: frozenset[LetterState]
) -> Mapping[TopicPartition, Sequence[int]]:
    """Offsets by partition, the oldest first. NotFound: one that is named is not there."""
    letters = facade.shared.letters
    if request.filter is not None:
        return await letters.selected(_filter(facade, request.filter, states))
    return await letters.placed(request.ids)


def _filter(facade: Facade, choice: LetterChoice, default: frozenset[LetterState]) -> LetterFilter:
    if choice.stage is not None and choice.stage not in set(Stage):
        raise wrong_parameter("stage", f"is one of {', '.join(Stage)}")
    if choice.state is not None and choice.state not in STATE_WORDS:
        raise wrong_parameter("state", f"is one of {', '.join(STATE_WORDS)}")
    return LetterFilter(
        app=facade.settings.app.name,
        topic=choice.topic,
        stage=choice.stage,
        code=choice.code,
        workflow=choice.workflow,
        since_ms=since_ms(choice.since),
        states=default if choice.state is None else STATE_WORDS[choice.state],
    )
