"""What the documents point at exists: a reading order with a wrong path costs a newcomer more than none."""

import re
from pathlib import Path

import pytest

from tests.project.repository import ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def documents() -> list[Path]:
    folders = (ROOT / "docs", ROOT / "examples")
    return sorted([*ROOT.glob("*.md"), *(file for folder in folders for file in folder.rglob("*.md"))])


@pytest.mark.parametrize("document", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_reading_order_names_files_that_exist() -> None:
    """In a row of the table, a bare name lies in the folder of the path before it."""
    missing: list[Path] = []
    count = 0
    for row in re.findall(r"^\| \d+ \|.*$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE):
        folder = ROOT
        for name in re.findall(r"`([\w/]+\.py)`", row):
            file = ROOT / name if "/" in name else folder / name
            folder = file.parent
            count += 1
            missing += [] if file.is_file() else [file]
    assert count > 8
    assert missing == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text()))
    assert listed == {file.name for file in folder.glob("[0-9]*.md")}


def test_the_readme_begins_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme
