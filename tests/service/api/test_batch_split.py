"""Batches are split as a parser would, whatever their texts, and not further than is taken."""

import asyncio
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.service import loop_turn
from headrace.service.api.batch_split import NotAnArray, TooManyItems, items_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(values, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_items_are_those_that_a_parser_finds(array: list[object], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(array, indent=indent, ensure_ascii=ascii_only).encode()
    assert [json.loads(item) for item in asyncio.run(items_of(b" \n" + text + b"\t", 6))] == array


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"1", b"[1,]", b"[,]", b"[1 2]", b"[1", b"[1]]", b'["a]', b"[" * 50_000, b"[{]}", b"nonsense"]
)
async def test_what_is_no_array_is_refused(text: bytes) -> None:
    with pytest.raises(NotAnArray):
        await items_of(text, 10)


async def test_no_more_is_split_than_is_taken() -> None:
    assert len(await items_of(b"[" + b"1," * 9 + b"1]", 10)) == 10
    with pytest.raises(TooManyItems):
        await items_of(b"[" + b"1," * 10 + b"1]", 10)


async def test_an_empty_array_has_no_items() -> None:
    assert await items_of(b"[ ]", 10) == []


async def test_others_work_while_one_large_item_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_turn, "FIRST_S", -1.0)
    monkeypatch.setattr(loop_turn, "SLICE_S", -1.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        large = msgspec.json.encode([[[]] * 1_000])
        assert len(await items_of(large, 10)) == 1
        counting.cancel()
    assert turns > 1_000
