"""Memory and descriptors against their limits."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from headrace.observability import told_process
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


MIB = 1 << 20
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.mark.parametrize(
    ("line", "folder", "names"), [("0::/pod/box", "pod/box", V2), ("4:cpu,memory:/pod/box", "memory/pod/box", V1)]
)
def test_several_workers_of_one_container_share_its_memory(
    tmp_path: Path, line: str, folder: str, names: tuple[str, str, str]
) -> None:
    process, groups = tmp_path / "proc", tmp_path / "cgroup"
    process.mkdir()
    (process / "statm").write_text(f"9999 {30 * MIB // os.sysconf('SC_PAGE_SIZE')} 1 1 0 1 0\n")
    (process / "cgroup").write_text(f"9:cpuset:/\n{line}\n")
    box = groups / folder
    box.mkdir(parents=True)
    limit, used, inactive = names
    (box / limit).write_text(f"{100 * MIB}\n")
    assert memory(process, groups) == (30 * MIB, 100 * MIB)  # what the group uses is not ours to see
    (box / used).write_text(f"{95 * MIB}\n")
    (box / "memory.stat").write_text(f"anon 1\n{inactive} {5 * MIB}\n")
    assert memory(process, groups) == (90 * MIB, 100 * MIB)
    (box.parent / limit).write_text(f"{60 * MIB}\n")  # a group above is nearer to its end
    (box.parent / used).write_text(f"{58 * MIB}\n")
    (box.parent / "memory.stat").write_text(f"{inactive} 0\n")
    assert memory(process, groups) == (58 * MIB, 60 * MIB)
    (process / "cgroup").unlink()
    found = memory(process, groups)
    assert found is not None
    assert found[0] == 30 * MIB


class Seen(Silent):
    def __init__(self) -> None:
        self.measured: list[told_process.ResourceMeasured] = []
        self.enough = asyncio.Event()

    def resource_measured(self, measured: told_process.ResourceMeasured, /) -> None:
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
