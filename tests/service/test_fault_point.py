"""Fault points: each stands in the shell, and costs nothing while no test has armed one."""

import ast
from collections import Counter

from headrace.service.fault_point import FaultPoint, armed, maybe
from tests.project.repository import ROOT


def test_every_point_stands_in_the_shell() -> None:
    named = Counter(
        node.attr
        for path in (ROOT / "headrace" / "service").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "FaultPoint"
    )
    assert set(named) == set(FaultPoint.__members__)
    assert len(FaultPoint) >= 24


def test_a_hook_hears_of_points_while_it_is_armed() -> None:
    heard: list[FaultPoint] = []
    maybe(FaultPoint.TAKEN)
    with armed(heard.append):
        maybe(FaultPoint.WOKEN)
    maybe(FaultPoint.TAKEN)
    assert heard == [FaultPoint.WOKEN]
