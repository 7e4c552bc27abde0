"""Imports of a Python file, read from its text: nothing is imported to find out."""

import ast
from pathlib import Path


def absolute_imports(file: Path) -> list[tuple[int, str]]:
    """Line and full name of each absolute import, sorted; those in functions and under TYPE_CHECKING too.

    `import a.b` gives `a.b`; `from a import b` gives `a.b`, because b may be a module.
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return sorted(found)


def is_in(name: str, package: str) -> bool:
    """True if a full name is the package or something in it."""
    return name == package or name.startswith(f"{package}.")
