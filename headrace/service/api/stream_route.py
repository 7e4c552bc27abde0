"""GET stream: live updates as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp_sse import EventSourceResponse

from headrace.service.api.problem import TOO_MANY, ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.web import StreamResponse

    from headrace.service.api.facade import Facade
    from headrace.service.api.live_runs import Followed
    from headrace.service.api.live_stream import Client
    from headrace.service.api.route import Asked

_SEND_S = 10.0  # a client that reads nothing for so long is cut
_RETRY_MS = 2_000


async def stream(facade: Facade, asked: Asked) -> StreamResponse:
    """Open until the client goes, does not read, or the service stops."""
    refuse_over(facade)
    asked.slot.release()
    last_id = asked.headers.get("Last-Event-ID") or asked.query.get("last_event_id")
    response = EventSourceResponse(send_timeout=_SEND_S, headers={"X-Content-Type-Options": "nosniff"})
    with ExitStack() as stack:
        followed = [stack.enter_context(facade.live.following(number)) for number in range(facade.shared.partitions)]
        known = all(each.caught_up.is_set() for each in followed)
        client = stack.enter_context(facade.stream.client(last_id))
        try:
            await response.prepare(asked.request)
            async with response:
                await response.send("{}", event="open", retry=_RETRY_MS)
                async with asyncio.TaskGroup() as tasks:
                    helpers = [tasks.create_task(_close_when_gone(response, client))]
                    if not known:
                        helpers.append(tasks.create_task(_anew_when_followed(facade, client, followed)))
                    await _send_all(response, client)
                    for helper in helpers:
                        helper.cancel()
        except* (ConnectionError, TimeoutError):
            pass  # it is gone, or cut: it comes back by itself
    return response


async def _send_all(response: EventSourceResponse, client: Client) -> None:
    while response.is_connected():
        event = await client.next()
        if event is None:
            return
        await response.send(event.data, id=event.id, event=event.name)


async def _close_when_gone(response: EventSourceResponse, client: Client) -> None:
    """What goes to a connection that is no more fails, if only the comment of every 15 s."""
    await response.wait()
    client.close()


async def _anew_when_followed(facade: Facade, client: Client, followed: Sequence[Followed]) -> None:
    """What happened while the log was read up to now was not told."""
    for each in followed:
        await each.caught_up.wait()
    client.put(facade.stream.anew())


def refuse_over(facade: Facade) -> None:
    """ApiError, if there are as many streams as the settings allow."""
    most = facade.settings.api.max_streams
    if len(facade.stream) < most:
        return
    raise ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        TOO_MANY,
        f"{most} live streams are open: api.max_streams.",
        do="Try again later, or raise the limit.",
    )
