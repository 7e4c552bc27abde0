"""The first net against non-deterministic workflows: reads their bytecode when an app is loaded, before anything runs.

It follows a workflow into the app's own functions and classes that it names, and resolves names to the objects behind them without running anything.
What it finds in the table (`determinism_table.py`) refuses the load, all findings at once. It cannot see through variables and third-party code: that is
for the guard, and in the end for divergence. On its way it collects the handlers that the workflows name, wherever those come from.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import (
    BuiltinMethodType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_type_hints

import msgspec

from headrace.handlers.definition import Handler
from headrace.service.definitions.bytecode import Reference, Scope, inner_code, names_of
from headrace.service.definitions.definition_code import HANDLER_CALLED, NOT_DETERMINISTIC
from headrace.service.definitions.determinism_table import FORBIDDEN, FORBIDDEN_MODULES, HARMLESS, SAME_MODULE
from headrace.service.definitions.place import Place
from headrace.service.definitions.resolved_annotation import closure_of
from headrace.service.definitions.workflow import Workflow
from headrace.topics.errors import DefinitionError

if TYPE_CHECKING:
    from headrace.service.definitions.app import AnyHandler, AnyWorkflow
    from headrace.service.definitions.app_files import OwnFiles

FINDINGS_MAX = 50


class Finding(NamedTuple):
    """One forbidden reference. `what` is as it is written; `instead` is the right call."""

    place: Place
    function: str
    what: str
    instead: str
    code: str

    def __str__(self) -> str:
        return f"{self.place}: {self.function} uses {self.what}: use {self.instead}"


def scan(workflows: Iterable[AnyWorkflow], own: OwnFiles) -> tuple[AnyHandler, ...]:
    """The handlers that these workflows name. DefinitionError lists what they may not do, at most 50 findings in order of file and line."""
    scanner = _Scanner(own)
    for workflow in workflows:
        scanner.begin(workflow)
    if scanner.findings:
        raise _refusal(sorted(scanner.findings))
    return tuple(scanner.handlers.values())


def _refusal(findings: list[Finding]) -> DefinitionError:
    shown = [str(finding) for finding in findings[:FINDINGS_MAX]]
    if len(findings) > FINDINGS_MAX:
        shown.append(f"... and {len(findings) - FINDINGS_MAX} more")
    return DefinitionError(
        "\n        ".join(shown),
        code=findings[0].code,
        why="A workflow's code runs again whenever its run is rebuilt from the log, and must do the same each time.",
        do="Do it as shown; docs/determinism.md tells what a workflow may do.",
    )


class _Instance(NamedTuple):
    """Stands for a value of a class, such as the input, whose methods are known."""

    kind: type


class _Scanner:
    """Goes through functions once each."""

    def __init__(self, own: OwnFiles) -> None:
        self._own = own
        self._seen: set[int] = set()
        self._kept: list[object] = []  # so that ids in _seen stay taken
        self.findings: set[Finding] = set()
        self.handlers: dict[int, AnyHandler] = {}

    def begin(self, workflow: AnyWorkflow) -> None:
        function = cast("FunctionType", workflow.function)
        self._function(function, {function.__code__.co_varnames[1]: workflow.input_type.annotation})
        kind = workflow.input_type.annotation
        if isinstance(kind, type):
            self._factories(kind, _Context(function))  # decoding the input runs them, on each replay anew

    def _function(self, function: FunctionType, types: dict[str, object]) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        self._kept.append(function)
        self._code(function.__code__, _Context(function, types), {})

    def _code(self, code: CodeType, context: _Context, imports: dict[str, str]) -> None:
        names = names_of(code, context.package)
        imports = {**imports, **names.imports}
        for reference in names.references:
            self._reference(reference, context, imports)
        for inner in inner_code(code):
            self._code(inner, context.without_parameters(), imports)

    def _reference(self, reference: Reference, context: _Context, imports: dict[str, str]) -> None:
        steps = list(_steps(reference, context, imports))
        for index, (title, value) in enumerate(steps):
            called = reference.called and index == len(reference.path) - 1
            instead = self._forbidden(title, value, called=called)
            if instead is not None:
                what = ".".join(reference.path[: index + 1]) + ("()" if called else "")
                self._find(context, reference.line, what, instead, NOT_DETERMINISTIC)
                return
            if isinstance(value, Handler) and called:
                what = f"{'.'.join(reference.path)}() directly"
                name = reference.path[-1]
                self._find(context, reference.line, what, f"await run.call({name}, ...)", HANDLER_CALLED)
            elif isinstance(value, Workflow) and called:
                what = f"{'.'.join(reference.path)}() directly"
                self._find(
                    context, reference.line, what, f"await run.call_child({reference.path[-1]}, ...)", HANDLER_CALLED
                )
        if steps:
            called = reference.called and len(steps) == len(reference.path)
            self._follow(steps[-1][1], context, called=called)

    def _find(self, context: _Context, line: int, what: str, instead: str, code: str) -> None:
        self.findings.add(Finding(Place(context.file, line), context.name, what, instead, code))

    def _follow(self, value: object, context: _Context, *, called: bool) -> None:
        """Go on into what is the app's own; keep handlers."""
        if isinstance(value, Handler):
            found = cast("AnyHandler", value)
            self.handlers[id(found)] = found
        elif isinstance(value, FunctionType):
            if self._own.has(value.__code__.co_filename):
                self._function(value, _parameter_types(value))
            wrapped = getattr(value, "__wrapped__", None)
            if isinstance(wrapped, FunctionType):
                self._follow(wrapped, context, called=called)
        elif isinstance(value, type):
            if called and self._is_own_class(value):
                self._construction(value, context)
        elif isinstance(value, (staticmethod, classmethod, MethodType)):
            self._follow(cast("Any", value).__func__, context, called=called)
        elif isinstance(value, (functools.partial, functools.partialmethod)):
            self._follow(cast("Any", value).func, context, called=called)
        elif isinstance(value, property):
            self._follow(value.fget, context, called=True)
        elif isinstance(value, functools.cached_property):
            self._follow(cast("Any", value).func, context, called=True)
        elif isinstance(value, (list, tuple, set, frozenset)):
            self._members(cast("Iterable[object]", value), context)
        elif isinstance(value, Mapping):
            self._members(cast("Mapping[object, object]", value).values(), context)
        elif isinstance(getattr(value, "__wrapped__", None), FunctionType):  # lru_cache and its like
            self._follow(cast("Any", value).__wrapped__, context, called=called)

    def _members(self, values: Iterable[object], context: _Context) -> None:
        """Tables of handlers and functions, one level deep."""
        for member in list(values):
            if isinstance(member, (Handler, FunctionType)):
                self._follow(cast("object", member), context, called=True)

    def _construction(self, kind: type, context: _Context) -> None:
        if id(kind) in self._seen:
            return
        self._seen.add(id(kind))
        self._kept.append(kind)
        for name in ("__new__", "__init__", "__post_init__", "model_post_init"):
            self._follow(inspect.getattr_static(kind, name, None), context, called=True)
        self._factories(kind, context)

    def _factories(self, kind: type, context: _Context) -> None:
        for field, factory in _default_factories(kind):
            instead = self._forbidden(_own_title(factory), factory, called=True)
            if instead is not None:
                what = f"the default of {kind.__qualname__}.{field}, {_own_title(factory)}()"
                self._find(context, context.line, what, instead, NOT_DETERMINISTIC)
            else:
                self._follow(factory, context, called=True)

    def _is_own_class(self, kind: type) -> bool:
        module = sys.modules.get(kind.__module__)
        return module is not None and self._own.has_module(module)

    def _forbidden(self, title: str, value: object, *, called: bool) -> str | None:
        """The right call, if this object is one that a workflow may not use."""
        if isinstance(value, ModuleType) or self._is_own(value):
            return None
        for name in dict.fromkeys((title, _own_title(value))):
            instead = _in_table(name, value, called=called)
            if instead is not None:
                return instead
        return None

    def _is_own(self, value: object) -> bool:
        if isinstance(value, FunctionType):
            return self._own.has(value.__code__.co_filename)
        return isinstance(value, type) and self._is_own_class(value)


class _Context:
    """Whose code is read: its globals, the closure's variables, types of parameters as far as annotations say them."""

    def __init__(self, function: FunctionType, types: dict[str, object] | None = None) -> None:
        self.name = function.__name__
        self.file = function.__code__.co_filename
        self.line = function.__code__.co_firstlineno
        self.globals = function.__globals__
        self.closure = closure_of(function)
        self.types = types or {}

    @property
    def package(self) -> str | None:
        return self.globals.get("__package__")

    def without_parameters(self) -> _Context:
        """For functions inside, whose variables are others."""
        if not self.types:
            return self
        inner = _Context.__new__(_Context)
        inner.__dict__.update(self.__dict__)
        inner.types = {}
        return inner


# --- from names to objects, without running anything -------------------------------------------------------------------

_UNKNOWN: Any = object()


def _steps(reference: Reference, context: _Context, imports: dict[str, str]) -> Iterator[tuple[str, object]]:
    """The objects along a path, each with the name by which it was reached; ends where one is unknown."""
    title, value = _variable(reference, context, imports)
    if value is _UNKNOWN and not title:
        return
    yield title, value
    for attribute in reference.path[1:]:
        title, value = _attribute(title, value, attribute)
        if value is _UNKNOWN and not title:
            return
        yield title, value


def _variable(reference: Reference, context: _Context, imports: dict[str, str]) -> tuple[str, Any]:
    name = reference.path[0]
    if name in imports and reference.scope is not Scope.GLOBAL:
        return _imported(imports[name])
    if reference.scope is Scope.LOCAL:
        kind = context.types.get(name)
        return ("", _Instance(kind)) if isinstance(kind, type) else ("", _UNKNOWN)
    if reference.scope is Scope.FREE:
        value = context.closure.get(name, _UNKNOWN)
    else:
        value = context.globals.get(name, _UNKNOWN)
        if value is _UNKNOWN:
            value = getattr(builtins, name, _UNKNOWN)
    return ("" if value is _UNKNOWN else _own_title(value)), value


def _imported(dotted: str) -> tuple[str, Any]:
    """What an import inside a function binds: the object if its module is loaded by now, else its name alone."""
    if dotted in sys.modules:
        return _canonical(dotted), sys.modules[dotted]
    module, _, name = dotted.rpartition(".")
    if module in sys.modules:
        return _attribute(_canonical(module), sys.modules[module], name)
    return _canonical(dotted), _UNKNOWN


def _attribute(title: str, value: Any, attribute: str) -> tuple[str, Any]:
    named = f"{title}.{attribute}" if title else ""
    if isinstance(value, ModuleType):
        module = _canonical(value.__name__)
        found = vars(value).get(attribute, _UNKNOWN)
        if found is _UNKNOWN:
            found = sys.modules.get(f"{value.__name__}.{attribute}", _UNKNOWN)
        if isinstance(found, ModuleType):
            return _canonical(found.__name__), found
        return f"{module}.{attribute}", found
    if isinstance(value, _Instance):
        return "", inspect.getattr_static(value.kind, attribute, _UNKNOWN)
    if isinstance(value, type):
        return named, inspect.getattr_static(value, attribute, _UNKNOWN)
    return (named if value is _UNKNOWN else ""), _UNKNOWN


def _own_title(value: object) -> str:
    """The name by which people know an object, from what it says of itself; "" for a value that has none."""
    if isinstance(value, ModuleType):
        return _canonical(value.__name__)
    if value is os.environ:
        return "os.environ"
    if isinstance(value, BuiltinMethodType | MethodType):
        owner = value.__self__
        name = value.__name__
        if owner is getattr(random, "_inst", None):
            return f"random.{name}"
        if isinstance(owner, ModuleType):
            return f"{_canonical(owner.__name__)}.{name}"
        if isinstance(owner, type):
            return f"{_own_title(owner)}.{name}"
        return ""
    if isinstance(value, ClassMethodDescriptorType | MethodDescriptorType):  # of a class in C, or of one that inherits
        return f"{_own_title(value.__objclass__)}.{value.__name__}"
    if isinstance(value, (FunctionType, type)):
        return f"{_canonical(value.__module__ or '')}.{value.__qualname__}"
    return ""


def _canonical(module: str) -> str:
    if module.startswith("asyncio."):
        return "asyncio"
    for name, known in SAME_MODULE.items():
        if module == name or module.startswith(name + "."):
            return known + module[len(name) :]
    return module


def _in_table(title: str, value: object, *, called: bool) -> str | None:
    instead = FORBIDDEN.get(title)
    if instead is not None:
        return instead
    if title in HARMLESS or (isinstance(value, type) and issubclass(value, BaseException)):
        return None
    counts = called if isinstance(value, type) or value is _UNKNOWN else callable(value)
    module = title.rpartition(".")[0] if counts else ""
    while module:
        if module in FORBIDDEN_MODULES:
            return FORBIDDEN_MODULES[module]
        module = module.rpartition(".")[0]
    return None


def _parameter_types(function: FunctionType) -> dict[str, object]:
    try:
        return get_type_hints(function)
    except Exception:  # noqa: BLE001 - the types only help to see more
        return {}


def _default_factories(kind: type) -> Iterator[tuple[str, Callable[[], Any]]]:
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            if field.default_factory is not dataclasses.MISSING:
                yield field.name, field.default_factory
    elif issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            if field.default_factory is not msgspec.NODEFAULT:
                yield field.name, field.default_factory
    else:
        fields: dict[str, Any] = getattr(cast("object", kind), "__pydantic_fields__", {})
        for name, field in fields.items():
            if field.default_factory is not None:
                yield name, field.default_factory
