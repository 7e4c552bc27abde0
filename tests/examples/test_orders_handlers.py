"""How a user tests handlers: called directly they are the bare functions, without timeouts, retries or breakers."""

import sys
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

from headrace import NonRetryable
from headrace.service.definitions.loader import load_app
from tests.examples.dev_process import ROOT

SYSTEMS = ("inventory", "reservations", "payment", "shipping", "accounting")


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of the example, by name."""
    monkeypatch.setenv("HEADRACE_DEMO_SEED", "7")
    app = load_app(ROOT / "examples" / "orders")
    return SimpleNamespace(**{name: sys.modules[name] for name in app.modules})


def order(shop: SimpleNamespace, id_: str, **fields: Any) -> Any:
    given = {"customer": "Mo", "email": "mo@shop.example", "item": "lamp", "quantity": 2, "total_cents": 9980}
    return shop.model.Order(id=id_, **(given | fields))


def ids() -> list[str]:
    return [f"A-{number:05d}" for number in range(1, 401)]


def smooth(shop: SimpleNamespace, system: str, share: float = 0.2) -> str:
    """An order that meets no trouble with a system at the first attempt."""
    trouble = shop.outside.trouble
    return next(
        id_ for id_ in ids() if trouble(system, id_, 1, errors=share, silences=0.0) is shop.outside.Trouble.NONE
    )


async def test_the_live_system_says_what_is_in_stock(shop: SimpleNamespace) -> None:
    stock = await shop.inventory.check_stock(order(shop, smooth(shop, "inventory")))
    assert stock.source == "live"


async def test_live_and_list_agree_about_every_order(shop: SimpleNamespace) -> None:
    answers = {id_: (await shop.inventory.read_stock_list(order(shop, id_))).available for id_ in ids()}
    missing = [id_ for id_, available in answers.items() if not available]
    assert 4 <= len(missing) <= 40
    assert all(shop.inventory.in_stock(order(shop, id_)) is available for id_, available in answers.items())


async def test_an_error_of_a_system_reaches_the_caller(shop: SimpleNamespace) -> None:
    trouble, kinds = shop.outside.trouble, shop.outside.Trouble
    unlucky = next(id_ for id_ in ids() if trouble("shipping", id_, 1, errors=0.06, silences=0.0) is kinds.ERROR)
    with pytest.raises(shop.outside.SystemDown, match=f"shipping answered 503 to attempt 1 for order {unlucky}"):
        await shop.fulfilment.request_shipping(order(shop, unlucky))


async def test_a_declined_card_is_not_asked_again(shop: SimpleNamespace) -> None:
    chance, payment = shop.outside.chance, shop.payment
    declined = next(id_ for id_ in ids() if chance("declined", id_) < payment.DECLINED and reaches(shop, id_))
    with pytest.raises(payment.CardDeclined, match="The card of Mo was declined") as raised:
        await payment.charge(order(shop, declined))
    assert isinstance(raised.value, NonRetryable)
    assert payment.charge.breaker.ignore == (payment.CardDeclined,)


async def test_charging_twice_gives_one_reference(shop: SimpleNamespace) -> None:
    payment = shop.payment
    first, other = [
        id_ for id_ in ids() if shop.outside.chance("declined", id_) >= payment.DECLINED and reaches(shop, id_)
    ][:2]
    paid = await payment.charge(order(shop, first))
    assert paid == await payment.charge(order(shop, first))
    assert paid.amount_cents == 9980
    assert paid.reference != (await payment.charge(order(shop, other))).reference


async def test_an_invoice_is_written_in_a_thread(shop: SimpleNamespace) -> None:
    invoice = await shop.fulfilment.write_invoice(order(shop, "A-1"), shop.model.Payment("P-1", 9905))
    assert invoice == shop.model.Invoice("I-A-1", "2 x lamp for Mo: 99.05 EUR, paid as P-1")
    assert not shop.fulfilment.write_invoice.is_async


@pytest.mark.parametrize("system", SYSTEMS)
def test_systems_fail_as_often_as_they_say_and_a_later_attempt_may_work(shop: SimpleNamespace, system: str) -> None:
    kinds = shop.outside.Trouble
    first, second = (
        [shop.outside.trouble(system, id_, attempt, errors=0.10, silences=0.05) for id_ in ids()] for attempt in (1, 2)
    )
    assert 20 <= first.count(kinds.ERROR) <= 65
    assert 6 <= first.count(kinds.SILENCE) <= 40
    failed = [index for index, kind in enumerate(first) if kind is not kinds.NONE]
    assert any(second[index] is kinds.NONE for index in failed)


def test_the_seed_decides_and_nothing_else(shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [shop.outside.chance("declined", id_) for id_ in ids()]
    assert before == [shop.outside.chance("declined", id_) for id_ in ids()]
    monkeypatch.setenv("HEADRACE_DEMO_SEED", "8")
    assert before != [shop.outside.chance("declined", id_) for id_ in ids()]


@pytest.mark.parametrize("seed", ["1", "2", "7", "42"])
def test_every_seed_has_one_outage_within_a_demo(
    shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, seed: str
) -> None:
    monkeypatch.setenv("HEADRACE_DEMO_SEED", seed)
    hit = [number for number in range(1, 201) if shop.outside.in_outage(f"A-{number:05d}")]
    assert hit == list(range(hit[0], hit[0] + shop.outside.OUTAGE_ORDERS))


def test_an_order_with_another_kind_of_id_meets_no_outage(shop: SimpleNamespace) -> None:
    assert not any(shop.outside.in_outage(id_) for id_ in ("", "mine", "A-", "A-1b", "A-²"))


async def test_the_feed_gives_the_same_valid_orders_for_the_same_seed(
    shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.sample_orders, "PER_SECOND", 1e9)
    once, again, other = [await taken(shop.app.feed(seed), 30) for seed in (7, 7, 8)]
    assert once == again != other
    orders = [shop.model.Order.model_validate(sample["data"]) for sample in once]
    assert [sample["key"] for sample in once] == [each.id for each in orders]
    assert len({each.id for each in orders}) == 30
    assert {(sample["topic"], sample["type"]) for sample in once} == {("orders", "com.shop.order.placed")}


@pytest.mark.parametrize("wrong", [{"quantity": 0}, {"total_cents": -1}, {"email": "mo"}, {"item": ""}])
def test_what_is_no_order_is_refused(shop: SimpleNamespace, wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        order(shop, "A-1", **wrong)


def reaches(shop: SimpleNamespace, id_: str) -> bool:
    """Whether the first attempt to charge gets an answer."""
    outside, payment = shop.outside, shop.payment
    what = outside.trouble("payment", id_, 1, errors=0.10, silences=0.04)
    return what is outside.Trouble.NONE and outside.chance("unreachable", id_) >= payment.UNREACHABLE


async def taken(samples: Any, count: int) -> list[Any]:
    found: list[Any] = []
    async for sample in samples:
        found.append(sample)
        if len(found) == count:
            break
    await samples.aclose()
    return found
