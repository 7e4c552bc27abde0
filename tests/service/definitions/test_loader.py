import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.service.definitions.loader import load_app
from headrace.topics.errors import DefinitionError
from tests.service.definitions.conftest import Load, Refusal

Write = Callable[..., Path]

MINIMAL = """\
from headrace import EventTrigger, Run, handler, workflow

@handler
async def charge(order: dict[str, object]) -> str:
    return "paid"

@workflow(on=EventTrigger("orders"))
async def fulfil(run: Run, order: dict[str, object]) -> str:
    return await run.call(charge, order)
"""


def test_a_file_is_an_app(process: None, write: Write) -> None:
    app = load_app(write(app=MINIMAL) / "app.py")
    assert app.name == "shop"
    assert [workflow.name for workflow in app.workflows] == ["fulfil"]
    assert [handler.name for handler in app.handlers] == ["charge"]
    assert app.source_topics == ("orders",)
    assert app.feed is None
    assert app.warnings == ()


def test_a_file_of_another_name_names_the_app(process: None, write: Write) -> None:
    assert load_app(write(billing=MINIMAL) / "billing.py").name == "billing"


def test_a_file_may_have_a_name_that_no_import_could_say(process: None, write: Write) -> None:
    folder = write(**{"my-app": MINIMAL})
    assert load_app(folder / "my-app.py").modules == ("my-app",)


def test_a_folder_with_app_py_is_that_file_alone(load: Load) -> None:
    app = load(app=MINIMAL, other="raise RuntimeError('not to be imported')")
    assert app.modules == ("app",)


def test_a_folder_without_app_py_is_its_files(load: Load) -> None:
    broken = "raise RuntimeError('not to be imported')"
    app = load(
        orders=MINIMAL,
        stock=MINIMAL.replace("fulfil", "restock").replace("charge", "count"),
        _private=broken,
        test_orders=broken,
        conftest=broken,
        deeper__in__orders=broken,
    )
    assert app.modules == ("orders", "stock")
    assert [workflow.name for workflow in app.workflows] == ["fulfil", "restock"]
    assert [handler.name for handler in app.handlers] == ["charge", "count"]


def test_a_module_is_an_app(process: None, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(__init__="", app="from .flows import fulfil", flows=MINIMAL)
    monkeypatch.chdir(folder.parent)
    app = load_app("shop.app")
    assert app.name == "shop"
    assert app.root == folder
    assert app.modules == ("shop", "shop.app", "shop.flows")
    assert [workflow.name for workflow in app.workflows] == ["fulfil"]


def test_an_installed_module_of_one_file_is_an_app_without_its_neighbours(
    process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "shopflows.py").write_text("import otherflows\n" + MINIMAL)
    (installed / "otherflows.py").write_text(MINIMAL.replace("fulfil", "theirs"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    sys.path.append(str(installed))
    app = load_app("shopflows")
    assert app.modules == ("shopflows",)
    assert [workflow.name for workflow in app.workflows] == ["fulfil"]


def test_modules_beside_the_app_may_have_our_names(load: Load) -> None:
    app = load(
        app="""\
            import service, topics, observability
            from handlers import charge
            from headrace import EventTrigger, Run, workflow

            @workflow(on=EventTrigger(topics.ORDERS))
            async def fulfil(run: Run, order: int) -> str:
                return await run.call(charge, order) + service.GREETING
            """,
        handlers="""\
            from headrace import handler

            @handler
            async def charge(order: int) -> str:
                return "paid"
            """,
        service="GREETING = 'hello'",
        topics="ORDERS = 'orders'",
        observability="",
    )
    assert app.modules == ("app", "handlers", "observability", "service", "topics")
    assert [handler.name for handler in app.handlers] == ["charge"]


def test_an_app_in_a_process_of_its_own_finds_its_modules_first(write: Write) -> None:
    """As the command line does it, from a working directory that has modules of the same names."""
    folder = write(app="import handlers, service\n" + MINIMAL, handlers="MINE = 1", service="MINE = 1")
    program = (
        "from headrace.service.definitions.loader import load_app\n"
        f"app = load_app({str(folder)!r})\n"
        "import handlers, service, sys\n"
        f"assert handlers.MINE and service.MINE and sys.path[0] == {str(folder)!r}\n"
        "print(*app.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("app handlers service\n", "")


def test_definitions_of_imported_modules_are_found_without_an_import_of_their_names(load: Load) -> None:
    app = load(app="import flows", flows=MINIMAL)
    assert [workflow.name for workflow in app.workflows] == ["fulfil"]


def test_handlers_that_only_a_workflow_names_are_found(process: None, write: Write, tmp_path: Path) -> None:
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "shoplib.py").write_text(
        "from headrace import handler\n"
        + "".join(
            f"@handler\nasync def {name}(x: int) -> int: return x\n" for name in ("one", "two", "three", "unused")
        )
        + "TABLE = {'three': three}\n"
    )
    sys.path.append(str(library))
    folder = write(
        app="""\
            import shoplib
            from headrace import Run, handler, workflow

            def made():
                @handler
                async def hidden(x: int) -> int: return x

                @workflow()
                async def fulfil(run: Run, order: int) -> int:
                    await run.call(hidden, 1)
                    await run.call(shoplib.one, 1)
                    return await helper(run)
                return fulfil

            async def helper(run: Run) -> int:
                from shoplib import two
                return await run.gather(run.call(two, 1), run.call(shoplib.TABLE["three"], 1))

            flow = made()
            """
    )
    app = load_app(folder)
    assert [handler.name for handler in app.handlers] == ["hidden", "one", "three", "two"]


def test_two_versions_of_a_workflow_are_fine(load: Load) -> None:
    source = MINIMAL + "".join(
        f"""
@workflow(name="fulfil", version="{version}", on=EventTrigger("orders{version}"))
async def fulfil_{n}(run: Run, order: int) -> None: ...
"""
        for n, version in enumerate(("10", "9.1", "9.10"))
    )
    app = load(app=source)
    assert [workflow.version for workflow in app.newest()] == ["10"]
    assert app.source_topics == ("orders10",)
    found = app.workflow("default", "fulfil", "9.10")
    assert found is not None
    assert found.version == "9.10"
    assert app.workflow("default", "fulfil", "2") is None


def test_an_alias_is_not_a_second_definition(load: Load) -> None:
    app = load(app="from flows import fulfil, charge\nalso = fulfil", flows=MINIMAL)
    assert len(app.workflows) == 1
    assert len(app.handlers) == 1


def test_a_workflow_defined_twice_is_named_with_both_places(refusal: Refusal) -> None:
    error = refusal(one=MINIMAL, two=MINIMAL.replace("charge", "count"))
    assert error.code == "HR2004"
    assert "fulfil version 1" in error.message
    assert "one.py:7" in error.message
    assert "two.py:7" in error.message


def test_handlers_of_one_name_are_named_with_both_places(refusal: Refusal) -> None:
    error = refusal(one=MINIMAL, two=MINIMAL.replace("fulfil", "restock"))
    assert error.code == "HR2005"
    assert "one.py:3" in error.message
    assert "two.py:3" in error.message


def test_two_breakers_of_one_name_are_refused_before_anything_runs(refusal: Refusal) -> None:
    other = "@handler(breaker=Breaker('bank', window=9))\nasync def refund() -> None: ...\n"
    breaker = "from headrace import Breaker, handler\n@handler(breaker=Breaker('bank', window=8))\nasync def pay() -> None: ...\n"
    error = refusal(orders=MINIMAL, tills=breaker + other)
    assert error.code == "HR2037"


@pytest.mark.parametrize("source", ["", "from headrace import handler\n@handler\nasync def charge() -> None: ..."])
def test_an_app_without_workflows_is_refused(refusal: Refusal, source: str) -> None:
    error = refusal(app=source)
    assert error.code == "HR2003"
    assert "shop" in error.message
    assert "app.py" in error.why


@pytest.mark.parametrize("app", ["nowhere", "nowhere.app", "no/where.py", "", "a b", "nowhere.py"])
def test_an_app_that_is_not_there(process: None, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError) as caught:
        load_app(app)
    assert caught.value.code in {"HR2001", "HR2003"}
    assert caught.value.do


def test_a_folder_without_python_and_a_file_that_is_none(process: None, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for app in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DefinitionError, match="no app at") as caught:
            load_app(app)
        assert caught.value.code == "HR2001"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\nimport never_installed\n", "app.py:2: .* cannot be imported: ModuleNotFoundError: No module named 'never_installed'"),
        ("import helper\n", "helper.py:3: .* cannot be imported: ZeroDivisionError: division by zero"),
        ("x = 1\ndef f(:\n", "app.py:2: .* cannot be imported: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)\n", r"app.py:2: .* cannot be imported: it called sys.exit\(3\)"),
        ("from .flows import fulfil\n", "app.py:1: .*relative import"),
        ("\nraise BaseException('odd')\n", "app.py:2: .*BaseException: odd"),
    ],
)  # fmt: skip
def test_an_error_of_the_users_is_shown_at_their_line(refusal: Refusal, source: str, said: str) -> None:
    error = refusal(app=source, helper="def f():\n    # divides\n    return 1 / 0\nf()\n")
    assert error.code == "HR2002"
    assert error.do
    import re

    assert re.search(said, error.message), error.message
    assert "headrace/" not in error.report()
    assert "Traceback" not in error.report()


def test_a_decorator_that_was_not_called_says_how_to(refusal: Refusal) -> None:
    error = refusal(app="from headrace import workflow\n@workflow\nasync def order(run, order): ...\n")
    assert "@workflow()" in error.do


def test_the_line_that_failed_is_quoted(refusal: Refusal) -> None:
    assert "`value = 1 / 0`" in refusal(app="value = 1 / 0").why


def test_a_definition_error_keeps_its_code_and_gets_its_line(refusal: Refusal) -> None:
    error = refusal(app="from headrace import EventTrigger\n\nEventTrigger('a b')\n")
    assert error.code == "HR2013"
    assert "app.py:3: " in error.message


def test_a_definition_error_that_knows_its_line_is_left_alone(refusal: Refusal) -> None:
    error = refusal(
        app="from headrace import Run, workflow\n@workflow(name='a b')\nasync def f(run: Run, x: int) -> None: ...\n"
    )
    assert error.code == "HR2010"
    assert error.message.count("app.py:") == 1


def test_an_app_that_failed_can_be_mended_and_loaded(process: None, write: Write) -> None:
    folder = write(app="import flows\n" + MINIMAL, flows="1 / 0")
    with pytest.raises(DefinitionError):
        load_app(folder)
    (folder / "flows.py").write_text("MENDED = True")
    assert load_app(folder).modules == ("app", "flows")


def test_a_second_app_forgets_the_first(process: None, write: Write, tmp_path: Path) -> None:
    first = write(app="import handlers\n" + MINIMAL, handlers="")
    load_app(first)
    second = tmp_path / "second"
    second.mkdir()
    (second / "app.py").write_text(MINIMAL.replace("fulfil", "restock"))
    app = load_app(second)
    assert [workflow.name for workflow in app.workflows] == ["restock"]
    assert "handlers" not in sys.modules
    assert str(first) not in sys.path


@pytest.mark.parametrize("name", ["queue", "antigravity", "msgspec"])
def test_a_file_whose_name_is_taken_is_refused(refusal: Refusal, name: str) -> None:
    error = refusal(**{name: MINIMAL})
    assert error.code == "HR2006"
    assert f"{name}.py cannot be imported" in error.message
    assert error.do == f"Rename {name}.py."


def test_a_standard_name_beside_the_app_is_explained_when_it_breaks(refusal: Refusal) -> None:
    error = refusal(app="import queue\nqueue.ORDERS\n" + MINIMAL, queue="ORDERS = 'orders'")
    assert error.code == "HR2002"
    assert "queue.py" in error.why
    assert "standard module" in error.why


@pytest.mark.parametrize("name", ["antigravity", "uvloop"])
def test_a_module_that_takes_the_place_of_one_that_others_need_is_refused(refusal: Refusal, name: str) -> None:
    """By its name alone: whether it breaks something would depend on who imports what first."""
    if name in sys.modules:
        pytest.skip(f"{name} is loaded in this process")
    error = refusal(app=f"import {name}\n{MINIMAL}", **{name: ""})
    assert error.code == "HR2006"
    assert f"{name}.py cannot be imported" in error.message


def test_a_standard_name_beside_the_app_is_a_warning_when_it_does_not(load: Load) -> None:
    app = load(app=MINIMAL, queue="ORDERS = 'orders'", antigravity="")
    assert len(app.warnings) == 2
    assert "antigravity.py hides" in app.warnings[0]
    assert "queue.py is never imported" in app.warnings[1]


def test_forward_references_are_resolved_when_all_is_there(load: Load) -> None:
    app = load(
        app="""\
            from __future__ import annotations
            from typing import TYPE_CHECKING
            from headrace import handler, workflow
            if TYPE_CHECKING:
                from headrace import Run

            @handler
            async def charge(order: Order) -> Receipt: ...

            @workflow()
            async def fulfil(run: Run, order: Order) -> Receipt:
                return await run.call(charge, order)

            from dataclasses import dataclass

            @dataclass
            class Order:
                id: str

            @dataclass
            class Receipt:
                order: Order
            """
    )
    order = app.workflows[0].input_type.decode(b'{"id":"o-1"}')
    assert order.id == "o-1"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (MINIMAL.replace("order: dict[str, object]) -> str:\n    return await", "order: Nowhere) -> str:\n    return await")
         .replace("from headrace", "from __future__ import annotations\nfrom headrace"), "HR2012"),
        (MINIMAL.replace("-> str:\n    return await", "-> set[str]:\n    return await"), "HR2031"),
    ],
)  # fmt: skip
def test_a_type_that_cannot_be_used_refuses_the_load(refusal: Refusal, source: str, code: str) -> None:
    error = refusal(app=source)
    assert error.code == code
    assert "app.py:" in error.message


async def test_a_feed_is_found(load: Load) -> None:
    app = load(app=MINIMAL + "\nasync def feed(seed: int):\n    yield seed\n    yield seed + 1\n")
    assert app.feed is not None
    assert [each async for each in app.feed(3)] == [3, 4]


@pytest.mark.parametrize(
    "feed",
    [
        "async def feed(seed): return [seed]",
        "def feed(seed): yield seed",
        "async def feed(): yield 1",
        "async def feed(seed, count): yield 1",
    ],
)
def test_a_feed_that_is_none_is_refused(refusal: Refusal, feed: str) -> None:
    error = refusal(app=f"{MINIMAL}\n{feed}\n")
    assert error.code == "HR2007"
    assert "app.py:11: " in error.message


def test_a_feed_may_come_from_another_module_of_the_app(load: Load) -> None:
    samples = "async def feed(seed): yield seed"
    assert load(app="from samples import feed\n" + MINIMAL, samples=samples).feed is not None


def test_what_is_called_feed_but_is_none_of_the_apps_functions_is_left_alone(load: Load) -> None:
    assert load(app="from shutil import copy as feed\n" + MINIMAL).feed is None
    assert load(app="feed = 'https://example.org/feed'\n" + MINIMAL).feed is None


def test_two_feeds_are_refused(refusal: Refusal) -> None:
    feed = "async def feed(seed): yield seed"
    error = refusal(one=f"{MINIMAL}\n{feed}\n", two=f"{feed}\n")
    assert error.code == "HR2007"
    assert "one and two" in error.message


def test_a_workflow_that_may_start_itself_is_a_warning(load: Load) -> None:
    app = load(app=MINIMAL.replace('EventTrigger("orders")', 'EventTrigger("orders"), emits=["orders", "done"]'))
    assert len(app.warnings) == 1
    assert "fulfil emits to orders" in app.warnings[0]
    assert app.emitted_topics == ("done", "orders")


def test_importing_an_app_registers_nothing(process: None, write: Write) -> None:
    """Two apps of one process share nothing, and a definition is not in an app because it was imported."""
    load_app(write(app=MINIMAL))
    app = load_app(write(app=MINIMAL.replace("fulfil", "other").replace("charge", "pay")))
    assert [workflow.name for workflow in app.workflows] == ["other"]
    assert [handler.name for handler in app.handlers] == ["pay"]


@pytest.mark.parametrize(
    ("folder", "name"), [("shop", "shop"), ("my shop!", "my-shop"), ("Ünter", "nter"), ("...", "app"), ("a.b", "a.b")]
)
def test_the_proposed_name_is_fit_for_a_topic(process: None, tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "app.py").write_text(MINIMAL)
    assert load_app(tmp_path / folder).name == name


def test_what_is_installed_in_the_apps_folder_is_not_the_apps(process: None, write: Write) -> None:
    folder = write(app="import lib\n" + MINIMAL)
    installed = folder / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "lib.py").write_text(MINIMAL.replace("fulfil", "theirs"))
    sys.path.append(str(installed))
    app = load_app(folder)
    assert app.modules == ("app",)
    assert [workflow.name for workflow in app.workflows] == ["fulfil"]
