"""Both examples, loaded as `headrace dev` loads them."""

import inspect

import pytest

from headrace.handlers.dispatch import Dispatcher
from headrace.service.definitions.app import App
from headrace.service.definitions.loader import load_app
from tests.examples.dev_process import ROOT

EXAMPLES = ("orders", "restock")


def example(name: str) -> App:
    return load_app(ROOT / "examples" / name)


def test_orders_reads_orders_and_says_where_it_writes() -> None:
    app = example("orders")
    assert [workflow.name for workflow in app.workflows] == ["fulfil"]
    assert app.source_topics == ("orders",)
    assert app.emitted_topics == ("orders.backordered", "orders.failed", "orders.fulfilled", "shop.alerts")


def test_restock_reads_two_topics_one_of_them_filtered() -> None:
    app = example("restock")
    (restock,) = app.workflows
    assert app.source_topics == ("stock.levels", "stock.requests")
    assert [trigger.filter is not None for trigger in restock.triggers] == [True, False]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_without_a_warning_and_has_a_feed(name: str) -> None:
    app = example(name)
    assert app.warnings == ()
    assert app.feed is not None


@pytest.mark.parametrize("name", EXAMPLES)
def test_breakers_and_pools_of_an_example_agree(name: str) -> None:
    dispatcher = Dispatcher[str]()
    for handler in example(name).handlers:
        dispatcher.register(handler)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_imports_nothing_of_ours_but_the_public_face(name: str) -> None:
    for file in sorted((ROOT / "examples" / name).glob("*.py")):
        assert "headrace." not in "".join(line for line in file.read_text().splitlines() if "import" in line), file


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_handler_that_leaves_the_process_has_a_timeout(name: str) -> None:
    """A fallback that only computes needs none."""
    without = {
        handler.name
        for handler in example(name).handlers
        if handler.timeout_ms is None and inspect.iscoroutinefunction(handler.function)
    }
    assert without <= {"read_stock_list"}
