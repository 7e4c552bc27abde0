"""What a PromQL expression names: metrics and labels. Read from its text, for the expressions that we generate."""

import re
from typing import Final

SELECTOR: Final = re.compile(r"\b((?:headrace|process|python)_\w+)(?:\{([^}]*)\})?")
RECORDED: Final = re.compile(r"\b\w+:headrace_\w+:\w+")
MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
SUFFIXES: Final = ("_bucket", "_sum", "_count")


def selectors(expression: str) -> list[tuple[str, dict[str, str]]]:
    """Each metric with its matchers' labels and values; recorded ones aside."""
    plain = RECORDED.sub("", expression)
    return [(name, dict(MATCHER.findall(matchers))) for name, matchers in SELECTOR.findall(plain)]


def recorded(expression: str) -> set[str]:
    """Names of recording rules."""
    return set(RECORDED.findall(expression))


def grouped(expression: str) -> set[str]:
    """Labels of `by` and `on`."""
    return {label.strip() for group in GROUPING.findall(expression) for label in group.split(",") if label.strip()}


def families_in(expression: str) -> set[str]:
    """Metrics without the suffixes of a histogram's samples."""
    found: set[str] = set()
    for name, _ in selectors(expression):
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
        found.add(name.removesuffix(suffix))
    return found
