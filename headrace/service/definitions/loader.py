"""Loads an app: the only place where user code is imported.

APP is a file, a folder (`app.py`, else every `*.py` directly in it except `_*`, `test_*` and `conftest.py`) or a module. The folder becomes `sys.path[0]`
after Headrace has imported what it needs, so the app's own modules may have any name that is not taken. Everything that is wrong is a DefinitionError
with the user's file and line. Called once per process by the command line, before anything runs; a second call in a process forgets the first app's modules.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, NamedTuple, cast

from headrace.handlers.definition import Handler
from headrace.handlers.dispatch import Dispatcher
from headrace.service.definitions import determinism_guard
from headrace.service.definitions.app import AnyHandler, AnyWorkflow, App, Feed
from headrace.service.definitions.app_files import OwnFiles
from headrace.service.definitions.definition_code import (
    APP_EMPTY,
    APP_NOT_FOUND,
    FEED_INVALID,
    HANDLER_TWICE,
    MODULE_NAME_TAKEN,
    WORKFLOW_TWICE,
)
from headrace.service.definitions.determinism_scan import scan
from headrace.service.definitions.import_failure import import_failure
from headrace.service.definitions.place import place_of, shown_path
from headrace.service.definitions.workflow import Workflow
from headrace.topics.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FILES_SHOWN_MAX = 10
# What Headrace imports, some of it after the app.
_NEEDED = frozenset(
    {
        "aiohttp",
        "aiokafka",
        "anyio",
        "cramjam",
        "cronsim",
        "cyclopts",
        "msgspec",
        "opentelemetry",
        "prometheus_client",
        "pydantic",
    }
    | {"rich", "structlog", "uuid_utils", "uvloop", "yaml"}
)
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
# Of the app that this process has, to forget when another is loaded: its modules by name, and what was put on sys.path.
_loaded: dict[str, ModuleType] = {}
_folders: list[str] = []


def load_app(app: str | os.PathLike[str]) -> App:
    """Import an app and judge its definitions: types are resolved, names are unique, workflows scanned. DefinitionError says what is wrong, and where."""
    target = _target(os.fspath(app))
    _prepare(target.folder)
    entries = [_imported(name, file, target) for name, file in target.entries]
    own = OwnFiles(target.root)
    modules = [module for module in list(sys.modules.values()) if own.has_module(module)]
    modules = sorted({*modules, *entries}, key=lambda module: module.__name__)
    _loaded.update({module.__name__: module for module in modules})
    _refuse_taken_names(modules, own)
    workflows, handlers = _collected(modules, target)
    handlers = _judged(workflows, handlers, own)
    return App(
        name=target.name,
        root=target.root,
        modules=tuple(module.__name__ for module in modules),
        workflows=tuple(sorted(workflows, key=lambda workflow: workflow.id)),
        handlers=tuple(sorted(handlers, key=lambda handler: handler.name)),
        feed=_feed(entries, own),
        warnings=tuple(_warnings(workflows, target)),
    )


# --- where the app is -------------------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """What APP means: entry modules by name (with a file if they are not found by name), the folder for sys.path, and the root that is the app's own."""

    shown: str
    name: str
    folder: Path
    root: Path
    entries: list[tuple[str, Path | None]]


def _target(app: str) -> _Target:
    path = Path(app)
    if path.is_file():
        return _file_target(app, path.resolve())
    if path.is_dir():
        return _folder_target(app, path.resolve())
    if _MODULE.fullmatch(app):
        return _module_target(app)
    raise _not_found(app, "There is no such file or folder.")


def _file_target(app: str, path: Path) -> _Target:
    if path.suffix != ".py":
        raise _not_found(app, "It is not a Python file.")
    named = path.parent.name if path.stem == "app" else path.stem
    return _Target(app, _topic_name(named), path.parent, path.parent, [(path.stem, path)])


def _folder_target(app: str, folder: Path) -> _Target:
    single = folder / "app.py"
    files = [single] if single.is_file() else sorted(file for file in folder.glob("*.py") if _is_definition_file(file))
    if not files:
        raise _not_found(app, "The folder has no app.py, nor any other Python file with definitions.")
    return _Target(app, _topic_name(folder.name), folder, folder, [(file.stem, file) for file in files])


def _module_target(app: str) -> _Target:
    folder = Path.cwd()
    importlib.invalidate_caches()
    before = list(sys.path)
    sys.path.insert(0, os.fspath(folder))
    try:
        spec = importlib.util.find_spec(app.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    finally:
        sys.path[:] = before
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise _not_found(app, "There is no such file, folder or module.")
    places = list(spec.submodule_search_locations or ())
    root = Path(places[0] if places else cast("str", spec.origin)).resolve()
    if not places and root.parent == folder:
        root = folder  # a file of the working directory, with its neighbours; an installed one stands for itself
    return _Target(app, _topic_name(app.removesuffix(".app").rpartition(".")[2]), folder, root, [(app, None)])


def _is_definition_file(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(("_", "test_")) and file.name != "conftest.py"


def _topic_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:100] or "app"


def _not_found(app: str, why: str) -> DefinitionError:
    do = "APP is a Python file, a folder with an app.py, or a module such as shop.app."
    return DefinitionError(f"There is no app at {app}.", code=APP_NOT_FOUND, why=why, do=do)


# --- importing it -----------------------------------------------------------------------------------------------------


def _prepare(folder: Path) -> None:
    """Everything of ours and the guard first; then the user's folder goes in front."""
    for name in ("headrace.service.engine.run", "asyncio"):
        importlib.import_module(name)
    determinism_guard.install()
    for name, module in _loaded.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _loaded.clear()
    for added in _folders:
        if added in sys.path:
            sys.path.remove(added)
    _folders[:] = [os.fspath(folder)]
    importlib.invalidate_caches()
    sys.path.insert(0, os.fspath(folder))


def _imported(name: str, file: Path | None, target: _Target) -> ModuleType:
    before = set(sys.modules)
    try:
        if file is None:
            return importlib.import_module(name)
        return _imported_file(name, file)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code: SystemExit must not end us without a word
        own = OwnFiles(target.root)
        for added in set(sys.modules) - before:
            if own.has_module(sys.modules[added]):
                del sys.modules[added]
        raise import_failure(error, target.shown, own, target.folder) from error


def _imported_file(name: str, file: Path) -> ModuleType:
    present = sys.modules.get(name)
    if present is not None and not _is_at(present, file):
        raise _taken(name, file, getattr(present, "__file__", None) or "Python itself")
    if present is not None:
        return present
    if owner := _owner_of(name):
        raise _taken(name, file, owner)
    if not name.isidentifier():
        return _imported_by_path(name, file)
    return importlib.import_module(name)


def _imported_by_path(name: str, file: Path) -> ModuleType:
    """A file such as `my-app.py`, which no import statement could name."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # noqa: S101 - a path that ends in .py has a loader
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _refuse_taken_names(modules: Iterable[ModuleType], own: OwnFiles) -> None:
    """A module of the app that took the place of one that others will import: it would break them later, far from its cause."""
    for module in modules:
        owner = _owner_of(module.__name__)
        if owner and module.__file__ and own.has(module.__file__):
            raise _taken(module.__name__, Path(module.__file__), owner)


def _owner_of(name: str) -> str:
    """Who needs this name of a module for itself; "" if nobody does."""
    if name in sys.stdlib_module_names:
        return "Python's standard library"
    return "a library that Headrace needs" if name in _NEEDED else ""


def _is_at(module: ModuleType, file: Path) -> bool:
    found = getattr(module, "__file__", None)
    return isinstance(found, str) and Path(found).resolve() == file


def _taken(name: str, file: Path, by: str) -> DefinitionError:
    return DefinitionError(
        f"{shown_path(os.fspath(file))} cannot be imported: the module name {name} is taken by {by}.",
        code=MODULE_NAME_TAKEN,
        do=f"Rename {file.name}.",
    )


# --- judging what it defines ------------------------------------------------------------------------------------------


def _collected(modules: Iterable[ModuleType], target: _Target) -> tuple[list[AnyWorkflow], list[AnyHandler]]:
    """The definitions at top level of these modules, each once."""
    workflows: dict[int, AnyWorkflow] = {}
    handlers: dict[int, AnyHandler] = {}
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, Workflow):
                workflows[id(value)] = value  # pyright: ignore[reportUnknownArgumentType]
            elif isinstance(value, Handler):
                handlers[id(value)] = value  # pyright: ignore[reportUnknownArgumentType]
    if not workflows:
        files = [shown_path(module.__file__) for module in modules if module.__file__]
        shown = ", ".join(files[:_FILES_SHOWN_MAX]) + (" and others" if len(files) > _FILES_SHOWN_MAX else "")
        raise DefinitionError(
            f"{target.shown} defines no workflow.",
            code=APP_EMPTY,
            why=f"Looked at the top level of {shown}.",
            do="Put @workflow(...) on an `async def` function of one of these modules.",
        )
    return list(workflows.values()), list(handlers.values())


def _judged(workflows: list[AnyWorkflow], handlers: list[AnyHandler], own: OwnFiles) -> list[AnyHandler]:
    """All handlers, with those that workflows use from elsewhere; every definition has its types."""
    _refuse_twice(workflows)
    found = {id(handler): handler for handler in handlers}
    for workflow in workflows:
        workflow.input_type  # noqa: B018 - resolves or raises
        workflow.result_type  # noqa: B018
        workflow.scheduled  # noqa: B018
    found.update({id(handler): handler for handler in scan(workflows, own)})
    by_name: dict[str, AnyHandler] = {}
    for handler in found.values():
        handler.load()
        other = by_name.setdefault(handler.name, handler)
        if other is not handler:
            raise DefinitionError(
                f"Two handlers have the name {handler.name}: {_shown(other)} and {_shown(handler)}.",
                code=HANDLER_TWICE,
                do="Rename one of them, or give it another name: @handler(name=...).",
            )
    _refuse_other_policies(found.values())
    return list(found.values())


def _refuse_other_policies(handlers: Iterable[AnyHandler]) -> None:
    """Breakers, pools and rate limits are shared by name: one name with two settings is an error (HR2037)."""
    dispatcher = Dispatcher[int]()
    for handler in handlers:
        dispatcher.register(handler)


def _refuse_twice(workflows: list[AnyWorkflow]) -> None:
    seen: dict[tuple[str, str, str], AnyWorkflow] = {}
    for workflow in workflows:
        other = seen.setdefault(workflow.id, workflow)
        if other is not workflow:
            raise DefinitionError(
                f"The workflow {workflow.name} version {workflow.version} is defined twice: "
                f"{other.place} and {workflow.place}.",
                code=WORKFLOW_TWICE,
                do="Rename one of them, or give it another version: @workflow(version=...).",
            )


def _shown(handler: AnyHandler) -> str:
    file, _, line = handler.place.rpartition(":")
    return f"{shown_path(file)}:{line}"


def _feed(entries: list[ModuleType], own: OwnFiles) -> Feed | None:
    """The `feed` of an entry module, defined there or imported from another module of the app."""
    feeds: dict[FunctionType, str] = {}
    for module in entries:
        feed = vars(module).get("feed")
        if isinstance(feed, FunctionType) and own.has(feed.__code__.co_filename):
            feeds.setdefault(feed, module.__name__)
    if not feeds:
        return None
    if len(feeds) > 1:
        message = f"There are several feeds, in {' and '.join(feeds.values())}."
        raise DefinitionError(message, code=FEED_INVALID, do="Keep one.")
    (feed,) = feeds
    parameters = inspect.signature(feed).parameters
    needed = [each for each in parameters.values() if each.default is inspect.Parameter.empty]
    if not inspect.isasyncgenfunction(feed) or not parameters or len(needed) > 1:
        raise DefinitionError(
            f"{place_of(feed)}: feed is not an async generator of a seed.",
            code=FEED_INVALID,
            do="Write `async def feed(seed: int)` with `yield`, or rename it if it is something else.",
        )
    return cast("Feed", feed)


def _warnings(workflows: list[AnyWorkflow], target: _Target) -> Iterator[str]:
    for workflow in workflows:
        for topic in sorted({trigger.topic for trigger in workflow.triggers} & set(workflow.emits)):
            yield (
                f"{workflow.place}: {workflow.name} emits to {topic}, which also starts it: "
                "each run may start another one, without end."
            )
    for file in sorted(target.folder.glob("*.py")):
        present = sys.modules.get(file.stem)
        shown = shown_path(os.fspath(file))
        if present is None and (owner := _owner_of(file.stem)):
            yield f"{shown} hides a module of {owner}: whoever imports {file.stem} later gets this file. Rename it."
        elif present is not None and not _is_at(present, file.resolve()) and file.stem != "__main__":
            by = getattr(present, "__file__", None) or "a module of Python itself"
            yield f"{shown} is never imported: `import {file.stem}` gives {by}. Rename it."
