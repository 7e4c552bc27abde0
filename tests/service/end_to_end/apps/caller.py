"""One request of each kind of failure, to a server that the test has."""

import os
from dataclasses import dataclass

from headrace import EventTrigger, HttpRequest, Retry, Run, TaskFailed, http_handler, http_request, workflow

NAME, URL = os.environ["E2E_NAME"], os.environ.get("E2E_URL", "")
BILLING = http_handler("billing", timeout="1m", retry=Retry(attempts=5, delay="5ms"))


@dataclass
class Order:
    id: str


@workflow(on=EventTrigger(f"{NAME}.in", type="order"))
async def charge(run: Run, order: Order) -> list[str]:
    charged = await run.call(BILLING, HttpRequest("POST", f"{URL}/charges", json={"order": order.id}))
    try:
        await run.call(http_request, HttpRequest("GET", f"{URL}/missing"))
    except TaskFailed as failed:
        return [charged.json()["charge"], failed.error]
    return []
