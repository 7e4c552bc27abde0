"""Source records in: what is an event and what is refused, with its code and the attribute at fault (reliability B1, B2)."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.topics.cloudevents import decode
from headrace.topics.event import DecodedEvent
from headrace.topics.event_data import EventLimits, EventRejected
from headrace.topics.log import LogRecord, TopicPartition
from headrace.topics.trace_context import TraceContext

AT = TopicPartition("orders", 3)
DATA = b'{ "order": "o-1", "total": 12.50, "big": 1180591620717411303424 }'
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BINARY = {
    "ce_specversion": b"1.0",
    "ce_id": b"o-1",
    "ce_source": b"/shop/web",
    "ce_type": b"com.shop.order.placed",
    "content-type": b"application/json",
}
STRUCTURED = {"specversion": "1.0", "id": "o-1", "source": "/shop/web", "type": "com.shop.order.placed"}
Change = dict[str, Any]


def record(
    value: bytes | None = DATA, headers: dict[str, bytes] | tuple[tuple[str, bytes], ...] = (), key: bytes | None = b"k"
) -> LogRecord:
    pairs = tuple(headers.items()) if isinstance(headers, dict) else headers
    return LogRecord(17, 1_763_721_900_123, key, value, pairs)


def binary(change: Change, value: bytes = DATA) -> LogRecord:
    """The sound binary event with headers changed, or left out where the change is None."""
    return record(value, {name: raw for name, raw in (BINARY | change).items() if raw is not None})


def structured(change: Change, content_type: bytes = b"application/cloudevents+json") -> LogRecord:
    """The sound structured event with members changed, or left out where the change is `...`."""
    members = STRUCTURED | {"data": {"order": "o-1"}} | change
    body = msgspec.json.encode({name: member for name, member in members.items() if member is not ...})
    return record(body, {"content-type": content_type})


def refused(given: LogRecord, limits: EventLimits | None = None) -> tuple[str, str | None]:
    with pytest.raises(EventRejected) as caught:
        decode(given, AT, limits or EventLimits())
    assert caught.value.stage == "decode"
    assert caught.value.message
    return caught.value.code, caught.value.attribute


def test_a_binary_event_is_decoded() -> None:
    change = {
        "ce_time": b"2026-11-21T10:45:00Z",
        "ce_subject": "Straße 1".encode(),
        "ce_dataschema": b"https://shop/schema/1",
        "ce_tenant": b"t1",
        "other": b"\xff",
    }
    decoded = decode(binary(change), AT)
    meta = decoded.meta
    assert (meta.id, meta.source, meta.type, meta.key) == ("o-1", "/shop/web", "com.shop.order.placed", "k")
    assert (meta.topic, meta.partition, meta.offset) == ("orders", 3, 17)
    assert (meta.time, meta.subject, meta.dataschema) == ("2026-11-21T10:45:00Z", "Straße 1", "https://shop/schema/1")
    assert (meta.extensions, meta.datacontenttype) == ({"tenant": "t1"}, None)
    assert bytes(decoded.data) == DATA
    assert decoded.plain().data["big"] == 2**70


def test_plain_json_is_an_event_of_its_topic() -> None:
    decoded = decode(record(DATA, {"x": b"1"}, key=None), AT)
    meta = decoded.meta
    assert (meta.id, meta.source, meta.type, meta.key) == ("3-17", "kafka:orders", "orders", None)
    assert bytes(decoded.data) == DATA
    assert decode(record(DATA, {"content-type": b"application/json"}), AT).meta.id == "3-17"


def test_a_structured_event_is_decoded_and_its_data_keeps_its_text() -> None:
    body = (
        b'{"id":"first","specversion":"1.0","data":{"not":"me"},"source":"/s","type":"t","id":"o-1","time":null,'
        b'"count":-2147483648,"flag":true,"note":"","data": [ 1180591620717411303424, 1.50 ] }'
    )
    decoded = decode(record(body, {"content-type": b"Application/CloudEvents+JSON; charset=UTF-8"}), AT)
    assert bytes(decoded.data) == b"[ 1180591620717411303424, 1.50 ]"
    assert decoded.meta.id == "o-1"
    assert decoded.meta.time is None
    assert decoded.meta.extensions == {"count": "-2147483648", "flag": "true", "note": ""}


@pytest.mark.parametrize(
    ("change", "data"),
    [
        ({"data": ...}, b"null"),
        ({"data": None}, b"null"),
        ({"data": "text"}, b'"text"'),
        ({"data": ..., "data_base64": base64.b64encode(DATA).decode()}, DATA),
        ({"data": {"a": 1}, "data_base64": None}, b'{"a":1}'),
        ({"data": "<ok>", "datacontenttype": "text/html"}, b'"<ok>"'),
        ({"data": ..., "datacontenttype": "text/plain"}, b"null"),
        ({"data": ..., "datacontenttype": "text/plain", "data_base64": "w6k="}, '"é"'.encode()),
        ({"data": 1, "datacontenttype": "application/vnd.shop+json; v=1"}, b"1"),
    ],
)
def test_structured_data_has_these_forms(change: Change, data: bytes) -> None:
    assert bytes(decode(structured(change), AT).data) == data


def test_the_structured_body_wins_over_headers_beside_it() -> None:
    body = msgspec.json.encode(STRUCTURED | {"data": 1})
    headers = {"content-type": b"application/cloudevents+json", "ce_id": b"other", "ce_Bad": b"\xff"}
    assert decode(record(body, headers), AT).meta.id == "o-1"


MISSING = [("specversion", "HR3010"), ("id", "HR3010"), ("source", "HR3010"), ("type", "HR3010")]
EMPTY = [
    (name, "HR3011")
    for name in ("specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype")
]
WRONG = [
    ("specversion", "0.3", "HR3014"),
    ("specversion", "1", "HR3014"),
    ("specversion", "1.0 ", "HR3014"),
    ("specversion", "1.1", "HR3014"),
    ("id", "a\nb", "HR3011"),
    ("id", "a\0", "HR3011"),
    ("type", "a\x7f", "HR3011"),
    ("type", "a\x85", "HR3011"),
    ("type", "a\ufdd0", "HR3011"),
    ("type", "a\U0001ffff", "HR3011"),
    ("source", "a b", "HR3011"),
    ("source", "/a\\b", "HR3011"),
    ("source", "/a%zz", "HR3011"),
    ("source", "/a%2", "HR3011"),
    ("source", "/käse", "HR3011"),
    ("source", "<a>", "HR3011"),
    ("subject", "a\tb", "HR3011"),
    ("time", "yesterday", "HR3011"),
    ("time", "2026-11-21", "HR3011"),
    ("time", "2026-11-21T10:45:00", "HR3011"),
    ("time", "2026-02-30T10:45:00Z", "HR3011"),
    ("time", "1763721900", "HR3011"),
    ("dataschema", "no-scheme", "HR3011"),
    ("dataschema", "http://a b", "HR3011"),
    ("tenant", "a\r\nb: c", "HR3011"),
]


@pytest.mark.parametrize(("name", "code"), MISSING)
def test_a_missing_attribute_is_named(name: str, code: str) -> None:
    assert refused(binary({f"ce_{name}": None})) == (code, name)
    assert refused(structured({name: ...})) == (code, name)
    assert refused(structured({name: None})) == (code, name)


@pytest.mark.parametrize(("name", "code"), EMPTY)
def test_an_empty_attribute_is_named(name: str, code: str) -> None:
    if name != "datacontenttype":
        assert refused(binary({f"ce_{name}": b""})) == (code, name)
    assert refused(structured({name: ""})) == (code, name)


@pytest.mark.parametrize(("name", "value", "code"), WRONG)
def test_a_wrong_attribute_is_named_and_its_value_is_not_quoted(name: str, value: str, code: str) -> None:
    for bad in (binary({f"ce_{name}": value.encode()}), structured({name: value})):
        with pytest.raises(EventRejected) as caught:
            decode(bad, AT)
        assert (caught.value.code, caught.value.attribute) == (code, name)
        assert len(value) < 5 or value not in caught.value.message


@pytest.mark.parametrize("value", [1, 1.0, True, [], {}])
@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "subject", "time", "dataschema"])
def test_core_attributes_are_strings_in_a_structured_event(name: str, value: object) -> None:
    assert refused(structured({name: value})) == ("HR3011", name)


@pytest.mark.parametrize("value", [1.5, 2**31, -(2**31) - 1, [], {}, {"a": 1}, [1]])
def test_an_extension_is_a_string_a_boolean_or_a_32_bit_integer(value: object) -> None:
    assert refused(structured({"tenant": value})) == ("HR3011", "tenant")


@pytest.mark.parametrize("name", ["Id", "my-ext", "my_ext", "tenant.id", "é", "", "data", "a b", "١"])
def test_an_attribute_name_is_lower_case_letters_and_digits(name: str) -> None:
    shown = name if name == "data" else ascii(name)
    assert refused(binary({f"ce_{name}": b"x"})) == ("HR3012", shown)
    if name != "data":
        assert refused(structured({name: "x"})) == ("HR3012", shown)


def test_a_long_strange_name_is_shown_short() -> None:
    code, shown = refused(binary({"ce_" + "é\n" * 500: b"x"}))
    assert code == "HR3012"
    assert shown is not None
    assert len(shown) < 400
    assert "\n" not in shown


def test_attribute_values_are_not_percent_decoded() -> None:
    decoded = decode(binary({"ce_id": b"a%20b%0A", "ce_subject": "50 % größer".encode()}), AT)
    assert (decoded.meta.id, decoded.meta.subject) == ("a%20b%0A", "50 % größer")


def test_header_values_are_utf_8() -> None:
    assert refused(binary({"ce_type": b"\xff"})) == ("HR3011", "type")
    assert refused(binary({"ce_tenant": b"\xed\xa0\x80"})) == ("HR3011", "tenant")


def test_a_header_that_counts_comes_once() -> None:
    pairs = tuple(BINARY.items())
    assert refused(record(DATA, (*pairs, ("ce_id", b"o-1")))) == ("HR3013", "id")
    assert refused(record(DATA, (*pairs, ("content-type", b"application/json")))) == ("HR3013", "datacontenttype")
    assert decode(record(DATA, (*pairs, ("x", b"1"), ("x", b"2"))), AT).meta.id == "o-1"


def test_two_media_types_must_agree() -> None:
    assert decode(binary({"ce_datacontenttype": b"application/json"}), AT).meta.datacontenttype is None
    assert refused(binary({"ce_datacontenttype": b"text/plain"})) == ("HR3013", "datacontenttype")


def test_any_ce_header_makes_it_a_cloudevent() -> None:
    assert refused(record(DATA, {"ce_tenant": b"t"})) == ("HR3010", "specversion")
    assert refused(record(DATA, {"ce_": b""})) == ("HR3010", "specversion")
    assert decode(record(DATA, {"CE_ID": b"t", "ceid": b"x"}), AT).meta.id == "3-17"


def test_the_spelling_of_content_type_does_not_matter_and_lower_case_wins() -> None:
    body = msgspec.json.encode(STRUCTURED)
    assert decode(record(body, {"Content-Type": b"application/cloudevents+json"}), AT).meta.id == "o-1"
    both = {"Content-Type": b"application/cloudevents+json", "content-type": b"application/json"}
    assert decode(record(body, both), AT).meta.id == "3-17"


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        (b"application/cloudevents-batch+json", "HR3015"),
        (b"APPLICATION/CLOUDEVENTS-BATCH+JSON; charset=utf-8", "HR3015"),
        (b"application/cloudevents+avro", "HR3016"),
        (b"application/cloudevents+protobuf", "HR3016"),
        (b"application/cloudevents", "HR3016"),
        (b"application/xml", "HR3019"),
        (b"application/octet-stream", "HR3019"),
        (b"application/avro", "HR3019"),
        (b"image/png", "HR3019"),
        (b"application/json; charset=iso-8859-1", "HR3019"),
        (b"text/plain; charset=utf-16", "HR3019"),
        (b"application/cloudevents+json; charset=latin1", "HR3019"),
        (b"json", "HR3019"),
        (b"application/", "HR3019"),
        (b"application/json, text/plain", "HR3019"),
        (b"", "HR3019"),
        (b"\xc3\xa9/json", "HR3019"),
        (b"application/json; a=\r\nb", "HR3019"),
    ],
)
def test_a_media_type_that_cannot_be_read_is_refused(content_type: bytes, code: str) -> None:
    assert refused(record(b"[]", {"content-type": content_type}))[0] == code


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json", b"Application/JSON", b"application/json;charset=UTF-8", b'application/json; charset="utf-8"', b"text/json",
        b"application/vnd.shop.v1+json", b"application/json; profile=x; charset=us-ascii", b" application/json ",
    ],
)  # fmt: skip
def test_json_has_many_media_types(content_type: bytes) -> None:
    decoded = decode(binary({"content-type": content_type}), AT)
    assert bytes(decoded.data) == DATA
    assert decoded.meta.attribute("datacontenttype") == content_type.decode()


def test_text_becomes_a_json_string() -> None:
    decoded = decode(binary({"content-type": b"text/csv; charset=utf-8"}, 'a,"b"\r\né,1'.encode()), AT)
    assert decoded.plain().data == 'a,"b"\r\né,1'
    assert decode(binary({"content-type": b"text/plain"}, b""), AT).plain().data == ""
    assert refused(binary({"content-type": b"text/plain"}, b"\xff")) == ("HR3020", "data")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (record(None), "HR3001"),
        (record(None, BINARY), "HR3001"),
        (record(DATA, key=b""), "HR3002"),
        (record(DATA, BINARY, key=b""), "HR3002"),
        (record(DATA, key=b"\xff\xfe"), "HR3003"),
        (record(b""), "HR3006"),
        (record(b"{"), "HR3006"),
        (record(b"NaN", BINARY), "HR3006"),
        (record(b'{"a":1e400}'), "HR3006"),
        (record(b'"\\ud800"', BINARY), "HR3006"),
        (record(b"\xef\xbb\xbf{}"), "HR3006"),
        (record(b'"\xff"'), "HR3006"),
        (record(b"[" * 100_000), "HR3007"),
        (record(b"[" * 100_000, BINARY), "HR3007"),
        (record(b"[" * 100_000, {"content-type": b"application/cloudevents+json"}), "HR3007"),
        (record(b"{", {"content-type": b"application/cloudevents+json"}), "HR3006"),
        (record(b"[]", {"content-type": b"application/cloudevents+json"}), "HR3017"),
        (record(b"null", {"content-type": b"application/cloudevents+json"}), "HR3017"),
        (structured({"data_base64": "e30="}), "HR3018"),
        (structured({"data": None, "data_base64": "e30="}), "HR3018"),
        (structured({"data": ..., "data_base64": "e30"}), "HR3020"),
        (structured({"data": ..., "data_base64": "e 30="}), "HR3020"),
        (structured({"data": ..., "data_base64": "é30="}), "HR3020"),
        (structured({"data": ..., "data_base64": 1}), "HR3020"),
        (structured({"data": ..., "data_base64": "ew=="}), "HR3006"),
        (structured({"data": 1, "datacontenttype": "text/plain"}), "HR3020"),
        (structured({"data": "<a/>", "datacontenttype": "application/xml"}), "HR3019"),
    ],
)
def test_bad_records_are_refused_with_their_code(given: LogRecord, code: str) -> None:
    assert refused(given)[0] == code


@pytest.mark.parametrize("by", [-1, 0, 1, 9000])
def test_the_payload_limit_is_exact(by: int) -> None:
    limits = EventLimits(payload_bytes_max=1000)
    given = record(b'"' + b"x" * (998 + by) + b'"')
    if by > 0:
        assert refused(given, limits)[0] == "HR3004"
    else:
        assert isinstance(decode(given, AT, limits), DecodedEvent)


@pytest.mark.parametrize("by", [-1, 0, 1, 600_000])
def test_the_header_limit_is_exact(by: int) -> None:
    given = record(DATA, {"name": b"v" * (65_532 + by)})
    if by > 0:
        assert refused(given)[0] == "HR3005"
    else:
        assert decode(given, AT).meta.id == "3-17"


def test_ten_thousand_headers_are_judged_by_their_bytes() -> None:
    assert decode(record(DATA, (("x", b""),) * 10_000), AT).meta.id == "3-17"
    assert refused(record(DATA, (("x", b"123456"),) * 10_000))[0] == "HR3005"
    assert refused(record(DATA, {f"ce_{n}": b"1" for n in range(10_000)}))[0] == "HR3005"


def test_structured_attributes_have_the_limit_of_headers() -> None:
    assert refused(structured({"tenant": "x" * 65_536}))[0] == "HR3005"
    assert decode(structured({"data": "x" * 65_536}), AT).meta.id == "o-1"


def test_nesting_is_limited_in_both_modes() -> None:
    deep: list[Any] = []
    for _ in range(62):
        deep = [deep]
    assert decode(structured({"data": deep}), AT).meta.id == "o-1"
    assert refused(structured({"data": [deep]}))[0] == "HR3007"
    assert decode(record(msgspec.json.encode([deep]), BINARY), AT).meta.id == "o-1"
    assert refused(record(msgspec.json.encode([[deep]]), BINARY))[0] == "HR3007"


def test_the_producers_trace_is_kept() -> None:
    trace = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1, "a=1")
    assert decode(binary({"traceparent": PARENT, "tracestate": b"a=1"}), AT).trace == trace
    assert decode(record(DATA, {"traceparent": PARENT, "tracestate": b"a=1"}), AT).trace == trace
    assert decode(binary({"ce_traceparent": PARENT, "ce_tracestate": b"a=1"}), AT).trace == trace
    assert decode(structured({"traceparent": PARENT.decode(), "tracestate": "a=1"}), AT).trace == trace
    other = PARENT.replace(b"4b", b"aa")
    assert decode(binary({"traceparent": PARENT, "tracestate": b"a=1", "ce_traceparent": other}), AT).trace == trace


def test_a_bad_trace_is_ignored() -> None:
    for bad in (b"", b"x" * 600, b"\xff", PARENT.upper(), PARENT + b"-01"):
        assert decode(binary({"traceparent": bad}), AT).trace is None
        assert decode(binary({"traceparent": PARENT, "tracestate": b"=" * 600}), AT).trace is not None
    assert decode(record(DATA, (("traceparent", PARENT),) * 2), AT).trace is None


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"tracestate": b"a=1"}, False),  # says nothing without a parent
        ({"traceparent": PARENT}, False),
        ({"traceparent": PARENT, "tracestate": b""}, False),
        ({"traceparent": PARENT, "tracestate": b"a=1"}, False),
        ({"traceparent": PARENT, "tracestate": b"A=1"}, True),
        ({"traceparent": PARENT, "tracestate": ",".join(f"k{n}=1" for n in range(100)).encode()}, True),
        ({"traceparent": b"00-nonsense"}, True),
        ({"traceparent": PARENT + b"0" * 545}, True),
        ({"ce_traceparent": b"x"}, True),
        ({"ce_traceparent": PARENT, "ce_tracestate": b"=" * 9}, True),
    ],
)
def test_a_context_that_is_not_used_is_noted(headers: dict[str, bytes], refused: bool) -> None:
    assert decode(binary(headers), AT).trace_refused is refused


# --- hostile bytes ----------------------------------------------------------------------------------------------------

attribute_names = st.sampled_from(
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_dataschema", "ce_datacontenttype", "ce_data",
     "ce_", "ce_X", "content-type", "Content-Type", "traceparent", "tracestate", "ce_traceparent"]
)  # fmt: skip
attribute_values = st.sampled_from(
    [b"1.0", b"", b"/s", b"t", b"application/json", b"application/cloudevents+json", b"text/plain", b"2026-11-21T10:45:00Z", PARENT]
)  # fmt: skip
any_headers = st.lists(
    st.tuples(attribute_names | st.text(max_size=8), attribute_values | st.binary(max_size=24)), max_size=12
).map(tuple)
any_values = (
    st.none()
    | st.binary(max_size=80)
    | st.dictionaries(
        st.sampled_from([*STRUCTURED, "time", "subject", "data", "data_base64", "datacontenttype", "dataschema", "x", "X"]),
        st.none() | st.sampled_from(["1.0", "a", "", "/s", "text/plain", "e30="]) | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
    ).map(msgspec.json.encode)
)  # fmt: skip


@given(any_values, any_headers, st.none() | st.binary(max_size=4))
@example(b"{}", (("content-type", b"application/cloudevents+json"),), None)
@example(b"[" * 2000, (("content-type", b"application/cloudevents+json"),), None)
@example(b"{}", (("ce_id", b"\xff"), ("ce_\ud800", b"")), None)
def test_any_record_is_decoded_or_refused_and_nothing_else(
    value: bytes | None, headers: tuple[tuple[str, bytes], ...], key: bytes | None
) -> None:
    try:
        decoded = decode(LogRecord(17, 0, key, value, headers), AT)
    except EventRejected as refusal:
        refusal.report().encode()
        return
    start = msgspec.json.encode({"meta": decoded.meta, "data": decoded.data})
    assert msgspec.json.decode(start)["meta"]["offset"] == 17
    assert decoded.meta.id
    assert decoded.meta.source
    assert decoded.meta.type
    assert decoded.plain().offset == 17
