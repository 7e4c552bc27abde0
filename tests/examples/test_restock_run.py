"""The restock example in a process of its own, judged by what lies on its topics."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.examples.dev_process import ROOT, DevProcess

COUNTED = "com.shop.stock.counted"
REQUESTED = "com.shop.stock.requested"


def signal(item: str, shop: str, left: int) -> dict[str, Any]:
    return {"item": item, "shop": shop, "left": left, "minimum": 5}


@pytest.mark.slow
def test_signals_of_one_item_join_in_one_restock(tmp_path: Path) -> None:
    with DevProcess(ROOT / "examples" / "restock", folder=tmp_path) as dev:
        low = [signal("lamp", "cork-1", 2), signal("lamp", "gent-2", 0)]
        dev.publish("stock.levels", COUNTED, [*low, signal("rug", "hull-3", 5)], key="item")
        dev.publish("stock.requests", REQUESTED, [signal("mug", "faro-1", 19)], key="item")
        dev.tail("headrace.audit", 1)
        dev.kill()  # the timers are pending; they go on after the start
        dev.start()

        results = {event["key"]: event["data"] for event in dev.tail_distinct("stock.restocked", 2)}
        assert set(results) == {"lamp", "mug"}
        for item, result in results.items():
            assert result["item"] == item
            assert result["quantity"] == sum(each["quantity"] for each in result["deliveries"]) > 0
            shops = [each["shop"] for each in result["deliveries"]]
            assert shops == sorted(shops)  # in the order of the shops, whichever van was first
            assert result["supplier_order"].startswith("S-")

        assert dev.stop() == 0
        assert len({event["id"] for event in dev.everything("stock.restocked")}) == 2
        unmatched = dev.everything("headrace.audit")[0]  # a kill before the commit may list it once more
        assert unmatched["data"]["kind"] == "unmatched"
        assert unmatched["data"]["topic"] == "stock.levels"
        runs = {run["key"]: json.loads(dev.cli("run", "get", run["id"], "-o", "json")) for run in dev.runs()}
        assert {key: run["joined"] for key, run in runs.items()} == {"lamp": 1, "mug": 0}
