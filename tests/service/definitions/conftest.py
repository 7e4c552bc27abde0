"""Apps written to a folder of their own, and loaded as the command line does."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from headrace.service.definitions.app import App
from headrace.service.definitions.loader import load_app
from headrace.topics.errors import DefinitionError

Load = Callable[..., App]
Refusal = Callable[..., DefinitionError]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[None]:
    """`sys.path` as it was, and no module of the app: loading one is the process's."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes files `name=text` into the app's folder (`part__in__name` into a folder in it), and gives the folder."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            file = tmp_path / "shop" / f"{name.replace('__in__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text))
        return tmp_path / "shop"

    return write


@pytest.fixture
def load(process: None, write: Callable[..., Path]) -> Load:
    def load(**files: str) -> App:
        return load_app(write(**files))

    return load


@pytest.fixture
def refusal(process: None, write: Callable[..., Path]) -> Refusal:
    """The error of an app that must not load."""

    def refusal(**files: str) -> DefinitionError:
        with pytest.raises(DefinitionError) as caught:
            load_app(write(**files))
        return caught.value

    return refusal


@pytest.fixture
def body_refusal(refusal: Refusal) -> Callable[..., str]:
    """What is said of a workflow with this body, below some imports."""

    def body_refusal(body: str, top: str = "") -> str:
        return refusal(app=workflow_source(body, top)).message

    return body_refusal


def workflow_source(body: str, top: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in dedent(body).strip().splitlines())
    return f"""\
from headrace import Run, handler, workflow
{dedent(top)}
@handler
async def charge(order: dict[str, object]) -> str:
    return "paid"

@workflow()
async def fulfil(run: Run, order: dict[str, object]) -> object:
{lines}
"""
