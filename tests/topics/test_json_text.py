"""JSON of strangers: the parser's verdict, limits before parsing, exact numbers (reliability A1 to A4)."""

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.json_text import JsonRejected, MalformedJson, NestedTooDeep, check_nesting, parse_json

VALID = [
    ("empty array", b"[]", []),
    ("empty object", b"{}", {}),
    ("empty key", b'{"":0}', {"": 0}),
    ("nul in a key", b'{"a\\u0000b":1}', {"a\0b": 1}),
    ("lone scalars", b" 42 ", 42),
    ("lone string", b'"x"', "x"),
    ("lone null", b"null", None),
    ("lone true", b"true", True),
    ("white space of all four kinds", b" \t\r\n[ 1 ,\t2\r\n] ", [1, 2]),
    ("zero", b"0", 0),
    ("negative zero", b"-0", 0),
    ("exponents", b"[1e2,1E+2,1e-2,0e1,1.5e3]", [100.0, 100.0, 0.01, 0.0, 1500.0]),
    ("2^70", str(2**70).encode(), 2**70),
    ("-2^70", str(-(2**70)).encode(), -(2**70)),
    ("a long integer", b"9" * 4000, int("9" * 4000)),
    ("a long fraction", b"0." + b"3" * 5000, float("0." + "3" * 50)),
    ("escapes", b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
    ("surrogate pair", b'"\\ud834\\udd1e"', "\U0001d11e"),
    ("upper and lower hex", b'"\\u00E9\\u00e9"', "éé"),
    ("unescaped DEL", b'"\x7f"', "\x7f"),
    ("line separators", '"\u2028\u2029"'.encode(), "\u2028\u2029"),
    ("noncharacter", '"\uffff"'.encode(), "\uffff"),
    ("of equal keys the last", b'{"a":1,"a":2}', {"a": 2}),
    ("dangerous names are names", b'{"__proto__":{"x":1},"constructor":0}', {"__proto__": {"x": 1}, "constructor": 0}),
    ("right-to-left override", '"\u202egnp.exe"'.encode(), "\u202egnp.exe"),
]  # fmt: skip

MALFORMED = [
    b"", b" ", b"\0", b"nul", b"nulll", b"True", b"FALSE", b"undefined", b"NaN", b"nan", b"Infinity", b"-Infinity",
    b"Inf", b"+1", b"-", b"--1", b"- 1", b"01", b"-01", b"1.", b".1", b"-.1", b"1.e1", b"1e", b"1e+", b"1eE2",
    b"0x1F", b"1_000", b"1,000", b"1 000", b"\xef\xbc\x91", b"1e400", b"-1e400", b"123123e100000", b"9" * 5000, b"[", b"]",
    b"[1", b"[1,", b"[1,]", b"[,1]", b"[,]", b"[1,,2]", b"[1 2]", b"[1]]", b"[1}", b"{", b"}", b"{]", b'{"a"',
    b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{,"a":1}', b'{"a" 1}', b'{"a":}', b"{:1}", b"{a:1}", b"{'a':1}",
    b"{1:1}", b"{null:1}", b'{"a":1 "b":2}', b'{"a":1;"b":2}', b'{"a"::1}', b'{"a":1}}', b'"', b'"a', b"'a'", b'"\\"',
    b'"\\x00"', b'"\\u"', b'"\\u12"', b'"\\u12G4"', b'"\\U0041"', b'"\\a"', b'"\\ "', b'"a\nb"', b'"a\tb"', b'"a\0b"',
    b'"\\ud800"', b'"\\udc00"', b'"\\ud800x"', b'"\\ud800\\u0041"', b'"\\udd1e\\ud834"', b'{"\\udead":1}', b'"\xff"',
    b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"\xfc\x80\x80\x80\x80\xaf"', b"\xff",
    b"[\xff]", b"\xef\xbb\xbf{}", b"{}\xef\xbb\xbf", b"\xff\xfe[\0]\0", b"\0[\0]", b"[1] // no", b"[1] /* no */",
    b"# no\n[1]", b"[1]x", b"[1][2]", b"1 2", b"{}{}", b"<a/>", b"a: 1", b"\x1f8b", b"\x0c[]", b"\xc2\xa0[]",
    b"\xe2\x81\xa0[]", b"[1\x0c]", b"*", b"@", b"\x1b[0m", b"(1)", b'["a":1]', b'{"a","b"}', b'["a]', b'"\x1f"',
    b'"\x00',
]  # fmt: skip


@pytest.mark.parametrize(("raw", "value"), [case[1:] for case in VALID], ids=[case[0] for case in VALID])
def test_json_is_read_exactly(raw: bytes, value: Any) -> None:
    read = parse_json(raw, nesting_max=64)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("raw", MALFORMED, ids=lambda raw: ascii(raw[:20]))
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedJson) as caught:
        parse_json(raw, nesting_max=64)
    assert caught.value.code == "HR3006"


def test_a_refusal_does_not_quote_the_text() -> None:
    for raw in (b'{"password":"hunter2",}', b'{"password":hunter2}', b'"hunter2\xff"', b"hunter2"):
        with pytest.raises(MalformedJson) as caught:
            parse_json(raw, nesting_max=64)
        assert "hunter2" not in caught.value.report()


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'[{"a":' * 40 + b"1" + b"}]" * 40,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'[{"":' * 50_000,
        b'["]",' * 65 + b"1" + b"]" * 65,
        b'["\\"",' * 65 + b"1" + b"]" * 65,
        b'["\\\\",' * 65 + b"1" + b"]" * 65,
        b'["\\\\\\"]",' * 65 + b"1" + b"]" * 65,
        b'{"}":' * 65 + b"1" + b"}" * 65,
    ],
    ids=lambda raw: ascii(raw[:16]),
)
def test_deep_nesting_is_refused_before_parsing(raw: bytes) -> None:
    with pytest.raises(NestedTooDeep, match=r"limits\.nesting is 64") as caught:
        parse_json(raw, nesting_max=64)
    assert caught.value.code == "HR3007"


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 64 + b"]" * 64,
        b"[" + b"[]," * 10_000 + b"[]]",
        b"[" + b'{"a":[{}]},' * 10_000 + b"0]",
        msgspec.json.encode("[" * 1000),
        msgspec.json.encode(['"[[' * 1000, "\\[{" * 1000, '\\"[{\\\\' * 1000]),
    ],
    ids=lambda raw: ascii(raw[:16]),
)
def test_brackets_side_by_side_or_in_strings_are_not_nesting(raw: bytes) -> None:
    assert msgspec.json.encode(parse_json(raw, nesting_max=64)) == raw.replace(b"\n", b"")


def test_the_limit_is_the_last_depth_allowed() -> None:
    for limit in (0, 1, 2, 63, 64, 500):
        check_nesting(b"[" * limit + b"]" * limit, nesting_max=limit)
        with pytest.raises(NestedTooDeep, match=f"nested {limit + 1} deep"):
            check_nesting(b"[" * (limit + 1) + b"]" * (limit + 1), nesting_max=limit)


unicode = st.text(st.characters(exclude_categories=("Cs",))) | st.text('[]{}"\\/', max_size=12)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | unicode,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\a', max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_depth_is_what_the_values_say(value: Any) -> None:
    raw, depth = msgspec.json.encode(value), depth_of(value)
    check_nesting(raw, nesting_max=depth)
    if depth:
        with pytest.raises(NestedTooDeep, match=f"nested {depth} deep"):
            check_nesting(raw, nesting_max=depth - 1)
    assert msgspec.json.encode(parse_json(raw, nesting_max=depth)) == raw


@given(st.binary(max_size=200) | st.text('[]{}"\\,:0ae', max_size=400).map(str.encode))
def test_bytes_are_read_or_refused_and_nothing_else(raw: bytes) -> None:
    try:
        value = parse_json(raw, nesting_max=8)
    except JsonRejected:
        return
    assert depth_of(value) <= 8


def test_memory_stays_in_proportion_at_the_size_limit() -> None:
    for raw in (b"[" * 450_000 + b"]" * 450_000, b"[" * 900_000, b'"' + b"[" * 900_000 + b'"', b'"\\"' * 300_000):
        tracemalloc.start()
        try:
            parse_json(raw, nesting_max=64)
        except JsonRejected:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 16 * len(raw)


def depth_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 0


def test_what_is_too_deep_for_the_parser_is_refused_under_any_limit() -> None:
    for raw in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'[{"":' * 50_000):
        with pytest.raises(MalformedJson):
            parse_json(raw, nesting_max=10**6)


@pytest.mark.parametrize(
    "raw",
    [b'"\\ud800"', b'{"a":"\\uDBff\\n"}', b'"\\\\\\ud800\\\\"', b'"\\ud800x'],
    ids=["end", "escape", "backslashes", "open"],
)
def test_a_lone_surrogate_at_the_end_is_said_to_be_one(raw: bytes) -> None:
    with pytest.raises(MalformedJson, match="lone surrogate"):
        parse_json(raw, nesting_max=64)


@pytest.mark.parametrize("raw", [b'"\\ud83d', b'"\\ud83d\\', b'"\\ud83d\\ude', b'"\\\\ud800', b'"\\u0041', b""])
def test_a_text_that_was_cut_is_said_to_be_truncated(raw: bytes) -> None:
    with pytest.raises(MalformedJson, match="truncated"):
        parse_json(raw, nesting_max=64)
