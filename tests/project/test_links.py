"""The four parts are linked at the top level, for readers. Nothing imports through a link."""

from pathlib import Path

import pytest

from tests.project.imports import absolute_imports, is_in
from tests.project.repository import PARTS, ROOT, python_files


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_linked_at_the_top_level(part: str) -> None:
    link = ROOT / part
    assert link.is_symlink()
    assert link.readlink() == Path("headrace") / part
    assert (link / "__init__.py").is_file()


@pytest.mark.parametrize("folder", ["headrace", "tests", "benchmarks", "scripts"])
def test_nothing_imports_through_a_link(folder: str) -> None:
    through = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in python_files(folder)
        for line, name in absolute_imports(file)
        if any(is_in(name, part) and not has_its_own(file, part) for part in PARTS)
    ]
    assert through == []


def has_its_own(file: Path, part: str) -> bool:
    """An app of a user may have a module of that name beside it: that one is meant."""
    return (file.parent / f"{part}.py").is_file()


def test_an_import_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from topics.event import Event\nimport service.owner\nfrom headrace import topics\n")
    assert absolute_imports(file) == [(2, "topics.event.Event"), (3, "service.owner"), (4, "headrace.topics")]
