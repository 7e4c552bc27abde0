"""A library has one home. The direction of imports between our parts is import-linter's (pyproject.toml).

A library in two places is a second way of doing the same thing, and a back end that can no longer be replaced.
"""

from fnmatch import fnmatch

import pytest

from tests.project.imports import absolute_imports, is_in
from tests.project.repository import ROOT, python_files

# Library: the files that may import it; `*` crosses folders. A new line here needs a reason beside it.
HOMES: dict[str, list[str]] = {
    "aiokafka": ["headrace/topics/*_kafka.py"],
    "cronsim": ["headrace/service/slots.py"],
    "cramjam": ["headrace/topics/*.py"],  # bounded decoders, put under aiokafka's
    "sqlite3": ["headrace/topics/*embedded*.py", "headrace/service/history/*"],
    "sqlalchemy": ["headrace/service/history/*"],
    "asyncpg": ["headrace/service/history/*"],
    "aiosqlite": ["headrace/service/history/*"],
    "alembic": ["headrace/service/history/*"],
    "aiohttp": [
        "headrace/service/api/*",
        "headrace/observability/*",  # the metrics and health port
        "headrace/handlers/http*.py",  # the client
    ],
    "prometheus_client": ["headrace/observability/*"],
    "opentelemetry": ["headrace/observability/*"],
    "structlog": ["headrace/observability/*"],
    "cyclopts": ["headrace/service/cli/*"],
    "rich": ["headrace/service/cli/*"],
    "fastavro": ["headrace/topics/*"],
    "uvloop": ["headrace/service/*"],
    "yaml": ["headrace/service/cli/*", "headrace/service/definitions/*"],
}


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_at_home_only(library: str) -> None:
    astray = [
        f"{path}:{line} imports {name}"
        for file in python_files("headrace")
        for line, name in absolute_imports(file)
        if is_in(name, library) and not at_home(path := file.relative_to(ROOT).as_posix(), library)
    ]
    assert astray == []


def test_nothing_inside_imports_the_public_face() -> None:
    parts = tuple(f"headrace.{folder.name}" for folder in (ROOT / "headrace").iterdir() if folder.is_dir())
    through = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in python_files("headrace")
        for line, name in absolute_imports(file)
        if is_in(name, "headrace") and not any(is_in(name, part) for part in parts)
    ]
    assert through == []


def test_a_part_exports_nothing() -> None:
    """Its `__init__.py` is a docstring: a name is imported from the file that defines it."""
    for part in ("handlers", "observability", "service", "topics"):
        assert absolute_imports(ROOT / "headrace" / part / "__init__.py") == []


def test_home_is_a_pattern_of_files() -> None:
    assert at_home("headrace/topics/log_kafka.py", "aiokafka")
    assert not at_home("headrace/topics/log.py", "aiokafka")
    assert not at_home("headrace/service/owner.py", "aiokafka")


def at_home(path: str, library: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in HOMES[library])
