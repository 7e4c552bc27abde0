"""Error codes: the table in docs/errors.md and the code say the same, and no code means two things."""

import ast
import re
from collections import defaultdict
from pathlib import Path

from tests.project.repository import ROOT, python_files

CODE = re.compile(r"\bHR\d{4}\b")
ROW = re.compile(r"^\| (HR\d{4}) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
# Written in more than one module, with one meaning each. A bug (HR9xxx) may be noticed anywhere.
SHARED = {
    "HR1201": "a topic is missing, as the log and the check at start find it",
}
# What a person at a terminal, or in front of a log line, has to answer. The others are answered by code, or are bugs.
FOR_USERS = {
    "AppendForbidden",
    "Conflict",
    "DefinitionError",
    "LogOwned",
    "MembershipRefused",
    "NotFound",
    "SettingsError",
    "TimedOut",
    "TopicForbidden",
    "TopicMissing",
    "TopicRefused",
    "UnknownRecord",
    "Usage",
}


def rows() -> list[tuple[str, str, str, str]]:
    return ROW.findall((ROOT / "docs" / "errors.md").read_text())


def mentioned() -> dict[str, set[str]]:
    """Every code in the text of the package, docstrings and comments included, and the files that have it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for file in python_files("headrace"):
        for code in CODE.findall(file.read_text()):
            found[code].add(place(file))
    return found


def written() -> dict[str, set[str]]:
    """The modules that have a code as a value of their own, instead of importing it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for file in python_files("headrace"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                found[node.value].add(place(file))
    return found


def defined() -> dict[str, list[str]]:
    """The names that a code is bound to: `Class.code`, or a constant of a module."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in python_files("headrace"):
        for scope in ast.walk(ast.parse(file.read_text())):
            if isinstance(scope, ast.Module | ast.ClassDef):
                for statement in scope.body:
                    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
                    if isinstance(value, ast.Constant) and isinstance(value.value, str) and CODE.fullmatch(value.value):
                        found[value.value].append(f"{place(file)}:{statement.lineno}")
    return found


def place(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_every_error_that_a_user_can_act_on_says_what_to_do() -> None:
    """As a field: the words of `docs/errors.md` are for all errors of one code."""
    silent = [
        f"{place(file)}:{node.lineno}"
        for file in python_files("headrace")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in FOR_USERS
        and "do" not in {keyword.arg for keyword in node.keywords}
    ]
    assert silent == []


def test_every_code_of_the_package_has_a_line_in_the_table() -> None:
    table = {row[0] for row in rows()}
    assert {code: files for code, files in mentioned().items() if code not in table} == {}


def test_every_line_of_the_table_is_a_code_of_the_package() -> None:
    codes = mentioned()
    assert len(codes) > 50
    assert [row[0] for row in rows() if row[0] not in codes] == []


def test_the_table_is_sorted_and_has_each_code_once() -> None:
    codes = [row[0] for row in rows()]
    assert codes == sorted(set(codes))


def test_each_line_has_a_meaning_of_its_own_and_says_what_to_do() -> None:
    meanings = [row[1] for row in rows()]
    assert len(set(meanings)) == len(meanings)
    assert [row[0] for row in rows() if not all(cell.strip().endswith(".") for cell in row[1:])] == []
    lines = [line for line in (ROOT / "docs" / "errors.md").read_text().splitlines() if line.startswith("| HR")]
    assert len(lines) == len(rows())


def test_a_code_has_one_name() -> None:
    assert {code: names for code, names in defined().items() if len(names) > 1} == {}


def test_a_code_is_written_in_one_module_and_imported_elsewhere() -> None:
    twice = {code: files for code, files in written().items() if len(files) > 1 and not code.startswith("HR9")}
    assert {code: files for code, files in twice.items() if code not in SHARED} == {}
    assert set(SHARED) - set(twice) == set()
