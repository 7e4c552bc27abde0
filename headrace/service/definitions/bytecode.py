"""What a code object names: reads the bytecode of Python 3.11 to 3.14 into references that are the same for all of them.

A reference is a variable and the attributes taken from it in a row: `datetime.datetime.now()` is one. Pure; called by `determinism_scan.py`.
"""

from __future__ import annotations

import dis
import importlib.util
import sys
from enum import Enum, auto
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator


class Scope(Enum):
    """Where a variable lives."""

    GLOBAL = auto()  # or a builtin
    LOCAL = auto()
    FREE = auto()  # of an enclosing function, or shared with an inner one


class Reference(NamedTuple):
    """`path` is the variable and the attributes after it; `called`: the last of them is called on the spot."""

    scope: Scope
    path: tuple[str, ...]
    called: bool
    line: int


class Names(NamedTuple):
    """Of one code object: its references in order, and what its import statements bind, as `{"now": "datetime.datetime.now"}`."""

    references: tuple[Reference, ...]
    imports: dict[str, str]


_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_FREE = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"})
_SILENT = frozenset({"EXTENDED_ARG", "CACHE", "NOP", "RESUME", "COPY_FREE_VARS", "MAKE_CELL"})
_CALL_FLAG_IN_ATTR = sys.version_info >= (
    3,
    12,
)  # LOAD_ATTR took over from LOAD_METHOD; the low bit of its argument says so
_NULL_COMES_AFTER = sys.version_info >= (3, 13)  # PUSH_NULL marks a callee: before it is loaded, or since 3.13 after


def names_of(code: CodeType, package: str | None = None) -> Names:
    """Read one code object, without those inside it. `package` resolves its relative imports."""
    reader = _Reader(code.co_firstlineno, package)
    for instruction in dis.get_instructions(code):
        if instruction.opname not in _SILENT:
            reader.read(instruction)
    reader.flush()
    return Names(tuple(reader.references), reader.imports)


def inner_code(code: CodeType) -> Iterator[CodeType]:
    """Functions, lambdas, comprehensions and classes that are defined inside."""
    return (const for const in code.co_consts if isinstance(const, CodeType))


class _Reader:
    """One pass: collects a chain of loads until an instruction breaks it."""

    def __init__(self, line: int, package: str | None) -> None:
        self.references: list[Reference] = []
        self.imports: dict[str, str] = {}
        self._line = line
        self._package = package
        self._scope = Scope.GLOBAL
        self._path: list[str] = []
        self._called = False
        self._null_before = False
        self._constants: tuple[Any, Any] = (None, None)  # the last two: level and names of an import
        self._module: str | None = None  # being imported
        self._from = False  # the statement is `from module import ...`
        self._part: str | None = None

    def flush(self) -> None:
        """End the chain."""
        if self._path:
            self.references.append(Reference(self._scope, tuple(self._path), self._called, self._line))
        self._path = []
        self._called = False

    def read(self, instruction: dis.Instruction) -> None:
        name = instruction.opname
        if name in {"LOAD_ATTR", "LOAD_METHOD"}:
            self._attribute(instruction)
        elif name == "PUSH_NULL":
            self._null()
        elif name in _GLOBAL:
            self._begin(Scope.GLOBAL, instruction, called=name == "LOAD_GLOBAL" and bool((instruction.arg or 0) & 1))
        elif name in _FREE:
            self._begin(Scope.FREE, instruction, called=False)
        elif name.startswith("LOAD_FAST"):
            self._begin(Scope.LOCAL, instruction, called=False)
        elif name.startswith(("STORE_", "IMPORT_")):
            self.flush()
            self._binding(instruction)
            if name == "STORE_FAST_LOAD_FAST":
                self._begin(Scope.LOCAL, instruction, called=False)
        else:
            self.flush()
            if name in {"LOAD_CONST", "LOAD_SMALL_INT"}:
                self._constants = (self._constants[1], instruction.argval)

    def _begin(self, scope: Scope, instruction: dis.Instruction, *, called: bool) -> None:
        self.flush()
        if instruction.positions is not None and instruction.positions.lineno is not None:
            self._line = instruction.positions.lineno
        variable = instruction.argval
        self._scope = scope
        # of two loads in one, the last is on top
        self._path = [variable[-1] if isinstance(variable, tuple) else variable]
        self._called = called or self._null_before
        self._null_before = False

    def _attribute(self, instruction: dis.Instruction) -> None:
        if not self._path:
            return
        self._path.append(instruction.argval)
        method = instruction.opname == "LOAD_METHOD" or (_CALL_FLAG_IN_ATTR and bool((instruction.arg or 0) & 1))
        self._called = self._called or method

    def _null(self) -> None:
        if _NULL_COMES_AFTER:
            self._called = bool(self._path)
            self.flush()
        else:
            self.flush()
            self._null_before = True

    # IMPORT_NAME reads a level and the names from the stack; `import a.b as c` fetches b from a with IMPORT_FROM too.
    def _binding(self, instruction: dis.Instruction) -> None:
        match instruction.opname:
            case "IMPORT_NAME":
                level, names = self._constants
                self._module = self._absolute(instruction.argval, level if isinstance(level, int) else 0)
                self._from = names is not None
                self._part = None
            case "IMPORT_FROM":
                self._part = instruction.argval
            case "IMPORT_STAR":
                self._module = None
            case _:
                self._store(instruction.argval)

    def _store(self, variable: Any) -> None:
        stored: object = cast("tuple[str, ...]", variable)[0] if isinstance(variable, tuple) else variable
        if self._module is not None and isinstance(stored, str):
            if self._from and self._part is not None:
                self.imports[stored] = f"{self._module}.{self._part}"
                return  # more names may follow
            self.imports[stored] = self._module.partition(".")[0] if self._part is None else self._module
        self._module = None

    def _absolute(self, module: str, level: int) -> str | None:
        if level == 0:
            return module
        try:
            return importlib.util.resolve_name("." * level + module, self._package)
        except (ImportError, ValueError):
            return None
