"""What the package imports is what it declares: an environment made from the metadata alone can run it."""

import importlib.metadata
import re
import sys
import tomllib

from tests.project.imports import absolute_imports
from tests.project.repository import ROOT, python_files


def test_every_library_that_is_imported_is_declared() -> None:
    declared = declared_distributions()
    owners = importlib.metadata.packages_distributions()
    undeclared: list[str] = []
    for file in python_files("headrace"):
        for line, name in absolute_imports(file):
            module = name.partition(".")[0]
            if module == "headrace" or module in sys.stdlib_module_names:
                continue
            if not {normalised(owner) for owner in owners.get(module, [])} & declared:
                undeclared.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    assert undeclared == []


def test_declared_names_are_read_from_requirements() -> None:
    assert {"aiokafka", "opentelemetry-sdk", "uvloop", "sqlalchemy"} <= declared_distributions()
    assert "pytest" not in declared_distributions()


def declared_distributions() -> set[str]:
    """Dependencies and extras of pyproject.toml, names normalised; development tools do not count."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements: list[str] = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    return {normalised(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]) for requirement in requirements}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
