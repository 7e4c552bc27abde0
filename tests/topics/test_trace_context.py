"""W3C trace context: what is sound is kept, what is not is ignored (reliability G3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.trace_context import (
    TraceContext,
    context_of_run,
    parse_traceparent,
    parse_tracestate,
    producer_of,
    received_context,
    span_id_in,
    span_id_of,
    trace_id_in,
    trace_id_of,
    with_producer,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (PARENT, 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 255),
        (f"01-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-03", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", 1),
        (f"fe-{TRACE}-{SPAN}-00-", 0),
    ],
)
def test_a_sound_traceparent_is_read(text: str, flags: int) -> None:
    assert parse_traceparent(text) == TraceContext(TRACE, SPAN, flags)
    assert (trace_id_in(text), span_id_in(text)) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT[:-1],
        PARENT + "-00",
        PARENT + " ",
        " " + PARENT,
        PARENT + "\n",
        PARENT.upper(),
        PARENT.replace("-", "_"),
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"zz-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01.future",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 600}",
        PARENT * 11,
        "x" * 600,
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
    ],
)
def test_an_unsound_traceparent_is_ignored(text: str) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("a=1", "a=1"),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" a=1 ,\tb=2\t,, c=3,", "a=1,b=2,c=3"),
        ("fw529a3039@dt=FfAAA, 0tenant@vendor=x", "fw529a3039@dt=FfAAA,0tenant@vendor=x"),
        ("a_-*/9=v a l:ue;{}", "a_-*/9=v a l:ue;{}"),
        (",".join(f"k{n}=v" for n in range(32)), ",".join(f"k{n}=v" for n in range(32))),
        ("a=" + "v" * 256, "a=" + "v" * 256),
    ],
)
def test_a_sound_tracestate_is_kept_in_order(text: str, state: str) -> None:
    assert parse_tracestate(text) == state


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "=1",
        "a=",
        "A=1",
        "9a=1",
        "a=1=2",
        "a=1,a=2",
        "a=é",
        "a=\x01",
        "a=1\nb=2",
        "a b=1",
        "a@=1",
        "@a=1",
        "a@b@c=1",
        "a=" + "v" * 257,
        "k" * 257 + "=1",
        ",".join(f"k{n}=v" for n in range(33)),
        ",".join(f"k{n}={'v' * 60}" for n in range(9)),
        "a=" + "v" * 5000,
    ],
)
def test_a_malformed_or_oversize_tracestate_is_dropped_whole(text: str) -> None:
    assert parse_tracestate(text) == ""


def test_a_bad_state_does_not_cost_the_parent() -> None:
    assert received_context([PARENT.encode()], [b"A=1"], {}) == TraceContext(TRACE, SPAN, 1)


def test_the_plain_header_wins_over_the_extension() -> None:
    other = PARENT.replace("4b", "aa")
    extensions = {"traceparent": other, "tracestate": "ext=1"}
    assert received_context([PARENT.encode()], [b"a=1"], extensions) == TraceContext(TRACE, SPAN, 1, "a=1")
    assert received_context([PARENT.encode()], [], extensions) == TraceContext(TRACE, SPAN, 1)
    assert received_context([], [b"a=1"], extensions) == TraceContext("aa" + TRACE[2:], SPAN, 1, "ext=1")
    assert received_context([], [b"a=1"], {}) is None


def test_several_states_are_one_list_and_several_parents_are_none() -> None:
    parent = PARENT.encode()
    assert received_context([parent], [b"a=1", b"b=2"], {}) == TraceContext(TRACE, SPAN, 1, "a=1,b=2")
    assert received_context([parent, parent], [], {"traceparent": PARENT}) is None
    assert received_context([b"\xff" * 55], [], {"traceparent": PARENT}) is None


@given(st.lists(st.binary(max_size=80), max_size=2), st.lists(st.binary(max_size=80), max_size=2))
def test_any_bytes_are_read_or_ignored(parents: list[bytes], states: list[bytes]) -> None:
    context = received_context(parents, states, {})
    assert context is None or parse_traceparent(context.traceparent) is not None


def test_ids_of_a_run_never_change() -> None:
    assert trace_id_of("3.abcdef") == "586a17fe16c98af434b5ec45c5498a23"
    assert span_id_of("3.abcdef", "start") == "61d8c187ab90f9b7"
    assert span_id_of("3.abcdef", "/0/pay#1") != span_id_of("3.abcdef", "/0/pay#2")


def test_a_run_has_a_trace_of_its_own_that_remembers_the_producer() -> None:
    producer = TraceContext(TRACE, SPAN, 0, "rojo=1,congo=2")
    context = context_of_run("3.abcdef", producer)
    assert context.trace_id == trace_id_of("3.abcdef")
    assert context.state == f"headrace=00-{TRACE}-{SPAN}-00,rojo=1,congo=2"
    assert producer_of(context.state) == TraceContext(TRACE, SPAN, 0)
    assert parse_traceparent(context.traceparent) == TraceContext(context.trace_id, context.span_id, 1)
    assert context_of_run("3.abcdef").state == ""


def test_the_nearest_producer_replaces_the_one_before() -> None:
    nearer = PARENT.replace("4b", "aa")
    assert with_producer(with_producer("a=1", PARENT), nearer) == f"headrace={nearer},a=1"


def test_no_producer_is_found_where_none_was_kept() -> None:
    assert producer_of("") is None
    assert producer_of("a=1,headracer=2") is None
    assert producer_of("headrace=damaged,a=1") is None


@given(st.integers(0, 32), st.integers(1, 256))
def test_a_state_with_our_member_is_sound_and_loses_members_from_the_end_only(count: int, length: int) -> None:
    members = [f"k{n}={'v' * length}" for n in range(count)]
    state = parse_tracestate(",".join(members))
    kept = with_producer(state, PARENT)
    assert parse_tracestate(kept) == kept
    before = state.split(",") if state else []
    after = kept.split(",")
    assert after[0] == f"headrace={PARENT}"
    assert after[1:] == before[: len(after) - 1]
    if len(after) - 1 < len(before):
        assert len(after) == 32 or len(kept) + 1 + len(before[len(after) - 1]) > 512
