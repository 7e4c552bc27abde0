"""What the documents point at exists: a reading order with a wrong path costs a newcomer more than none."""

import re
from pathlib import Path

import pytest

from headrace.service.cli import command_line
from tests.project.repository import ROOT
from tests.service.cli.conftest import Headrace, headrace, here

__all__ = ["headrace", "here"]  # fixtures

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
CODE = re.compile(r"^```\w*\n(.*?)^```$|`([^`\n]+)`|^    ([^\n]*)$", re.DOTALL | re.MULTILINE)
TYPED = re.compile(r"(?<!from )(?<![\w./-])headrace ((?:--version|[a-z]+)(?: [^\n;|#)]*)?)")
PLACE = re.compile(r"(?<![\w./<])((?:headrace|tests|docs|examples|benchmarks|scripts)/[\w./-]*\w)(?![\w*<{])")
COMMANDS = set(command_line.names())
MADE = {"benchmarks/results/latest.md"}  # by a command


def documents() -> list[Path]:
    folders = (ROOT / "docs", ROOT / "examples")
    return sorted([*ROOT.glob("*.md"), *(file for folder in folders for file in folder.rglob("*.md"))])


@pytest.mark.parametrize("document", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def code_in(document: Path) -> list[str]:
    """Fenced blocks, code spans and indented lines; a line that goes on with a backslash is one."""
    return ["".join(parts).replace("\\\n", " ") for parts in CODE.findall(document.read_text())]


def typed_in(document: Path) -> list[tuple[tuple[str, ...], list[str]]]:
    """The commands that a document tells to type: their words, and the long options behind them."""
    found: list[tuple[tuple[str, ...], list[str]]] = []
    for code in code_in(document):
        for line in TYPED.findall(code):
            words = [word for word in line.split() if re.fullmatch(r"[a-z]+(?:\|[a-z]+)*", word)]
            groups = {group for group, *_ in COMMANDS if (group,) not in COMMANDS}
            command = tuple(words[: 2 if words and words[0] in groups else 1])
            found.append((command, re.findall(r"(?<!\S)--[a-z-]+", line)))
    return found


@pytest.mark.parametrize("document", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_command_that_a_document_names_is_one_and_takes_these_options(document: Path, headrace: Headrace) -> None:
    helps: dict[tuple[str, ...], str] = {}
    wrong: list[str] = []
    for command, options in typed_in(document):
        if not command:  # an option of its own: --version
            wrong += [option for option in options if option not in {"--version", "--help"}]
            continue
        if command not in COMMANDS and not any(known[: len(command)] == command for known in COMMANDS):
            wrong.append(" ".join(command))
            continue
        if command not in helps:
            helps[command] = headrace(*command, "--help").out
        wrong += [f"{' '.join(command)} {option}" for option in options if option not in helps[command]]
    assert wrong == []


def test_commands_are_found_in_documents() -> None:
    typed = typed_in(ROOT / "README.md")
    assert (("event", "publish"), ["--type", "--data"]) in typed
    assert (("serve",), ["--bootstrap-servers", "--create-topics"]) in typed


@pytest.mark.parametrize("document", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    named = {place.rstrip(".") for code in code_in(document) for place in PLACE.findall(code)}
    assert [name for name in sorted(named) if not (ROOT / name).exists() and name not in MADE] == []


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


def test_every_page_is_in_the_index() -> None:
    folder = ROOT / "docs"
    listed = LINK.findall((folder / "README.md").read_text())
    assert {name for name in listed if "/" not in name} == {file.name for file in folder.glob("*.md")} - {"README.md"}


def test_the_readme_begins_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme
