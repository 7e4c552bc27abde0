"""Memory and descriptors against their limits."""

from __future__ import annotations

import asyncio
import os

from headrace.observability import observer as o
from headrace.observability.label import Resource
from headrace.observability.resource_watch import Judgement, ResourceWatch, descriptors, memory
from headrace.observability.silent import Silent


def test_what_is_short_is_told_once_until_it_has_clearly_eased() -> None:
    judgement = Judgement()
    told = [judgement.judged(Resource.MEMORY, used, 100) for used in (50, 84, 85, 99, 80, 75, 74, 84, 90)]
    assert [each.short for each in told] == [False, False, True, True, True, True, False, False, True]
    assert [each.used for each in told if each.changed] == [85, 74, 90]


def test_resources_are_judged_apart() -> None:
    judgement = Judgement()
    assert judgement.judged(Resource.MEMORY, 90, 100).changed
    assert judgement.judged(Resource.DESCRIPTORS, 90, 100).changed


def test_this_process_has_memory_and_descriptors() -> None:
    found = memory()
    assert found is not None
    assert 1 << 20 < found[0] < found[1]
    before = descriptors()
    assert before is not None
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    after = descriptors()
    for each in opened:
        os.close(each)
    assert after is not None
    assert after[0] >= before[0] + 50
    assert after[1] == before[1]


class Seen(Silent):
    def __init__(self) -> None:
        self.measured: list[o.ResourceMeasured] = []
        self.enough = asyncio.Event()

    def resource_measured(self, measured: o.ResourceMeasured, /) -> None:
        asyncio.get_running_loop()  # told on the loop
        self.measured.append(measured)
        if len(self.measured) > 3:
            self.enough.set()


async def test_it_is_told_on_the_loop_and_what_is_not_known_is_left_out() -> None:
    seen = Seen()
    with ResourceWatch(seen, {Resource.MEMORY: lambda: (9, 10), Resource.DESCRIPTORS: lambda: None}, every_s=0.001):
        await seen.enough.wait()
    assert {each.resource for each in seen.measured} == {Resource.MEMORY}
    assert [each.changed for each in seen.measured[:2]] == [True, False]
