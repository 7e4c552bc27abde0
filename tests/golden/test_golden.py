"""Logs of every format fold to what they meant when they were written."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.open_runs import OpenRuns
from headrace.service.engine.state import PartitionState
from headrace.topics.partition_hash import partition_of
from headrace.topics.run_record import decode

HERE = Path(__file__).parent
FORMATS = ["format_1", "format_1_recovery", "format_1_approvals", "format_1_children", "format_1_schedules"]


class Line(msgspec.Struct):
    offset: int
    timestamp_ms: int
    value: msgspec.Raw


def shown(value: Any) -> Any:
    """Plain JSON types. Raw JSON becomes what it says, tuples as keys become text, structs and unions carry their type's name."""
    match value:
        case msgspec.Raw():
            return msgspec.json.decode(value)
        case msgspec.Struct():
            fields = {name: shown(getattr(value, name)) for name in value.__struct_fields__}
            return {"type": type(value).__name__, **fields}
        case OpenRuns():
            return {run.id: shown(run) for run in value.values()}
        case dict():
            return {key if isinstance(key, str) else str(key): shown(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted(shown(item) for item in value)
        case bytes():
            return value.hex()
        case str():
            return str(value)
        case None | bool() | int() | float():
            return value
        case _:
            return [shown(item) for item in value]


def folded(name: str) -> tuple[PartitionState, list[Any]]:
    state = new_state(topic="shop.runs", partition=partition_of(b"k", 4), partitions=4, client_retention_ms=86_400_000)
    effects: list[Any] = []
    for text in (HERE / f"{name}.log.jsonl").read_bytes().splitlines():
        line = msgspec.json.decode(text, type=Line)
        value = bytes(line.value)
        said = fold(state, line.offset, line.timestamp_ms, len(value), decode(value))
        effects.append(
            [line.offset, said.skip, said.without_effect, [type(each).__name__ for each in said.instructions]]
        )
    return state, shown(effects)


def assert_contains(found: Any, recorded: Any, path: str = "$") -> None:
    """Everything that was recorded is there. Structs may have gained fields; everything else is equal."""
    if isinstance(recorded, dict) and "type" in recorded:
        assert found.keys() >= recorded.keys(), path
        for key, item in recorded.items():
            assert_contains(found[key], item, f"{path}.{key}")
    elif isinstance(recorded, dict):
        assert found.keys() == recorded.keys(), path
        for key, item in recorded.items():
            assert_contains(found[key], item, f"{path}.{key}")
    elif isinstance(recorded, list):
        assert len(found) == len(recorded), path
        for index, (one, other) in enumerate(zip(found, recorded, strict=True)):
            assert_contains(one, other, f"{path}[{index}]")
    else:
        assert found == recorded, path


@pytest.mark.parametrize("name", FORMATS)
def test_a_recorded_log_folds_to_the_recorded_state(name: str) -> None:
    state, _ = folded(name)
    assert_contains(shown(state), msgspec.json.decode((HERE / f"{name}.state.json").read_bytes()))


@pytest.mark.parametrize("name", FORMATS)
def test_every_recorded_line_has_the_recorded_effect(name: str) -> None:
    _, effects = folded(name)
    assert effects == msgspec.json.decode((HERE / f"{name}.effects.json").read_bytes())


def test_the_recorded_logs_have_records_of_every_kind_and_skip() -> None:
    from headrace.service.engine.gate import Skip
    from headrace.service.engine.instruction import Instruction

    effects = [effect for name in FORMATS for effect in folded(name)[1]]
    assert {skip for _, skip, _, _ in effects} == {None, *map(str, Skip)}
    assert {kind for *_, kinds in effects for kind in kinds} == {each.__name__ for each in Instruction.__args__}
