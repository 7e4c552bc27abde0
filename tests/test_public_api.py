"""What an app imports from `headrace`, and what that costs. The list is a promise to users: a change here is a change of theirs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import headrace

PUBLIC = [
    "Approval",
    "Attempt",
    "Breaker",
    "Cancelled",
    "Cause",
    "ChildFailed",
    "DefinitionError",
    "Duration",
    "Event",
    "EventTrigger",
    "Handler",
    "HandlerDecorator",
    "HeadraceError",
    "HttpRequest",
    "HttpResponse",
    "NonRetryable",
    "NotDeterministic",
    "Pool",
    "RateLimit",
    "Retry",
    "Retryable",
    "Run",
    "Schedule",
    "Step",
    "TaskFailed",
    "Tick",
    "Workflow",
    "current_attempt",
    "handler",
    "http_handler",
    "http_request",
    "workflow",
]

HEAVY = {"aiokafka", "cramjam", "aiohttp", "sqlite3", "sqlalchemy", "asyncpg", "cyclopts", "rich", "opentelemetry"}
HEAVY |= {"prometheus_client", "structlog", "uvloop", "yaml", "http.client", "urllib.request"}


def test_the_public_names_are_these_in_order() -> None:
    assert headrace.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_the_same_each_time(name: str) -> None:
    assert getattr(headrace, name) is getattr(headrace, name)
    assert name in dir(headrace)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Workflo'"):
        _ = headrace.Workflo


def test_type_checkers_see_every_name_where_it_is_loaded_from() -> None:
    """The imports under TYPE_CHECKING and the table of homes say the same."""
    tree = ast.parse(Path(headrace.__file__).read_text())
    imports = {
        alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    seen = {name: imports[name] for name in PUBLIC}
    assert seen == headrace._HOME_OF


def loaded_by(program: str) -> set[str]:
    """The modules that a fresh process has after `program`."""
    program += "\nimport sys\nprint('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_import_headrace_loads_nothing_of_ours_nor_any_library() -> None:
    loaded = loaded_by("import headrace")
    assert not loaded & (HEAVY | {"asyncio", "msgspec", "pydantic", "anyio"})
    assert {name for name in loaded if name.startswith("headrace")} == {"headrace"}


def test_what_an_app_imports_loads_no_kafka_http_or_sql_library() -> None:
    assert not loaded_by(f"from headrace import {', '.join(PUBLIC)}") & HEAVY


def test_importing_patches_nothing() -> None:
    program = "import time\nbefore = time.time\nfrom headrace import *\nimport headrace.service.definitions.loader\nassert time.time is before"
    assert "headrace.service.definitions.determinism_guard" in loaded_by(program)
