"""The orders example in a process of its own, judged by what lies on its topics."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.service.definitions.loader import load_app
from tests.examples.dev_process import ROOT, DevProcess

APP = ROOT / "examples" / "orders"
PLACED = "com.shop.order.placed"
RESULTS = ("orders.fulfilled", "orders.backordered", "orders.failed")


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The example's modules, to know beforehand what the simulated systems will do."""
    monkeypatch.delenv("HEADRACE_DEMO_SEED", raising=False)
    app = load_app(APP)
    return SimpleNamespace(**{name: sys.modules[name] for name in app.modules})


def placed(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "customer": "Mo",
        "email": "mo@shop.example",
        "item": "lamp",
        "quantity": 1,
        "total_cents": 4990,
    }


def ending(shop: SimpleNamespace, id_: str) -> str:
    """Where the result of an order that meets no outage will be, or which way it fails."""
    outside, payment = shop.outside, shop.payment
    tries = [outside.trouble("payment", id_, number, errors=0.10, silences=0.04) for number in range(1, 5)]
    if not shop.inventory.in_stock(shop.model.Order(**placed(id_))):
        return "back-ordered"
    if outside.chance("unreachable", id_) < payment.UNREACHABLE or outside.Trouble.NONE not in tries:
        return "unreachable"
    return "declined" if outside.chance("declined", id_) < payment.DECLINED else "fulfilled"


def chosen(shop: SimpleNamespace, **wanted: int) -> dict[str, list[str]]:
    """So many orders of each ending."""
    found: dict[str, list[str]] = {way: [] for way in wanted}
    for number in range(10_000):
        id_ = f"T-x{number}"
        way = ending(shop, id_)
        if len(found.get(way, [])) < wanted.get(way, 0):
            found[way].append(id_)
    assert {way: len(ids) for way, ids in found.items()} == wanted
    return found


def waits_for_the_gateway(shop: SimpleNamespace, id_: str) -> bool:
    """Whether the first attempt to charge gets no answer, and so lasts until its timeout."""
    return shop.outside.trouble("payment", id_, 1, errors=0.10, silences=0.04) is shop.outside.Trouble.SILENCE


def orders_of(events: list[dict[str, Any]]) -> list[str]:
    return sorted(event["data"]["order"] for event in events)


def one_result_each(dev: DevProcess, *, crashed: bool = False) -> list[str]:
    """The orders that have a result, each exactly one. Nothing lies on a topic twice, unless a crash came between."""
    events = [event for topic in RESULTS for event in dev.everything(topic)]
    distinct = {event["id"]: event for event in events}
    assert crashed or len(distinct) == len(events)
    counted = Counter(orders_of(list(distinct.values())))
    assert set(counted.values()) == {1}, counted
    return sorted(counted)


@pytest.mark.slow
def test_every_order_has_the_ending_that_fits_it(shop: SimpleNamespace, tmp_path: Path) -> None:
    ways = chosen(shop, **{"fulfilled": 12, "back-ordered": 3, "declined": 2, "unreachable": 1})
    ids = [id_ for way in ways.values() for id_ in way]
    no_order = placed("T-none") | {"quantity": 0}
    again = placed(ways["fulfilled"][0])  # while the first is open: it joins
    with DevProcess(APP, folder=tmp_path) as dev:
        dev.publish("orders", PLACED, [*map(placed, ids), again, no_order], key="id")

        fulfilled = dev.tail("orders.fulfilled", 12)
        assert orders_of(fulfilled) == sorted(ways["fulfilled"])
        assert {event["key"] for event in fulfilled} == set(ways["fulfilled"])
        assert {event["type"] for event in fulfilled} == {"com.shop.order.fulfilled"}
        assert all(event["data"]["tracking"].startswith("T-") for event in fulfilled)
        assert {event["data"]["stock"] for event in fulfilled} <= {"live", "list"}

        assert orders_of(dev.tail("orders.backordered", 3)) == sorted(ways["back-ordered"])

        failed = {event["data"]["order"]: event["data"] for event in dev.tail("orders.failed", 3)}
        assert set(failed) == {*ways["declined"], *ways["unreachable"]}
        assert {data["step"] for data in failed.values()} == {"charge"}
        assert [failed[id_]["attempts"] for id_ in ways["unreachable"]] == [4]
        assert all("declined" in failed[id_]["reason"] for id_ in ways["declined"])

        alerts = [event["data"] for event in dev.tail("shop.alerts", 1)]
        assert [(alert["system"], alert["order"]) for alert in alerts] == [("payment", ways["unreachable"][0])]

        (letter,) = dev.tail("orders.dlq", 1)
        assert letter["dead_letter"]["stage"] == "start"
        assert json.loads(letter["dead_letter"]["value"]) == no_order

        assert dev.stop() == 0
        assert one_result_each(dev) == sorted(ids)
        statuses = Counter(run["status"] for run in dev.runs())
        assert statuses == {"succeeded": 15, "compensated": 3}


@pytest.mark.slow
def test_killed_twice_every_order_still_gets_one_result(shop: SimpleNamespace, tmp_path: Path) -> None:
    ids = chosen(shop, fulfilled=40)["fulfilled"]
    slow = [id_ for id_ in ids if waits_for_the_gateway(shop, id_)]
    assert slow  # a second each: they are open when others have finished
    with DevProcess(APP, folder=tmp_path) as dev:
        assert dev.stop() == 0
        dev.publish("orders", PLACED, [placed(id_) for id_ in ids], key="id")
        for _ in range(2):
            dev.start()
            dev.wait_for_a_finished_run()
            dev.kill()
        assert len({event["id"] for event in dev.everything("orders.fulfilled")}) < len(ids)

        dev.start()
        assert orders_of(dev.tail_distinct("orders.fulfilled", len(ids))) == sorted(ids)
        assert dev.stop() == 0
        assert one_result_each(dev, crashed=True) == sorted(ids)
        assert Counter(run["status"] for run in dev.runs()) == {"succeeded": len(ids)}


@pytest.mark.slow
def test_an_outage_opens_the_breaker_tells_the_admin_and_passes(shop: SimpleNamespace, tmp_path: Path) -> None:
    hit = [id_ for id_ in (f"A-{number:05d}" for number in range(1, 401)) if shop.outside.in_outage(id_)]
    smooth = [id_ for id_ in hit if ending(shop, id_) == "fulfilled"]
    (late,) = chosen(shop, fulfilled=1)["fulfilled"]
    with DevProcess(APP, folder=tmp_path) as dev:
        dev.publish("orders", PLACED, [placed(id_) for id_ in hit], key="id")

        alerts = [event["data"] for event in dev.tail("shop.alerts", len(hit))]
        about = [alert for alert in alerts if alert["system"] == "inventory"]
        assert sorted(alert["order"] for alert in about) == hit
        assert {alert["cause"] for alert in about} == {"deadline"}
        dev.publish("orders", PLACED, [placed(late)], key="id")

        events = {event["data"]["order"]: event["data"] for event in dev.tail("orders.fulfilled", len(smooth) + 1)}
        assert sorted(events) == sorted([*smooth, late])
        assert {events[id_]["stock"] for id_ in smooth} == {"list"}
        assert events[late]["stock"] == "live"
        moves = [said["after"] for said in dev.logged("breaker.changed") if said["breaker"] == "inventory"]
        assert moves[:3] == ["open", "half_open", "closed"]


@pytest.mark.slow
def test_a_feed_with_a_limit_ends_by_itself_with_all_results_out(tmp_path: Path) -> None:
    with DevProcess(APP, "--feed", "--limit", "12", "--seed", "3", folder=tmp_path) as dev:
        assert dev.ended() == 0
        assert one_result_each(dev) == [f"A-{number:05d}" for number in range(1, 13)]
