"""Events out: what is encoded is decoded again, and no text of a run can break a header."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.cloudevents import decode
from headrace.topics.event import parse_time
from headrace.topics.event_data import EventLimits, EventRejected
from headrace.topics.log import LogRecord, NewRecord, TopicPartition
from headrace.topics.new_event import NewEvent, Provenance, encode_event, encode_output, header_text
from headrace.topics.trace_context import TraceContext

AT = TopicPartition("orders", 3)
TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1, "headrace=x,a=1")
ORDER = NewEvent(
    id="3.ab-4",
    source="headrace:shop/fulfil",
    type="com.shop.order.fulfilled",
    data=b'{"order":"o-1"}',
    subject="o-1",
    time_ms=1_763_721_900_123,
    key="o-1",
)

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=12)
json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | words, lambda inner: st.lists(inner) | st.dictionaries(words, inner)
)
events = st.builds(
    NewEvent,
    id=words,
    source=st.from_regex(r"(?:[a-z]+:)?/?[a-zA-Z0-9/._~%41-]*[a-z]", fullmatch=True).filter(
        lambda text: "%" not in text
    ),
    type=words,
    data=json_data.map(msgspec.json.encode),
    subject=st.none() | words,
    time_ms=st.none() | st.integers(0, 2**45),
    key=st.none() | words,
    extensions=st.dictionaries(
        st.from_regex(r"x[a-z0-9]{1,8}", fullmatch=True), st.text(st.characters(categories=("L", "Nd")), max_size=8)
    ),
)


def as_read(record: NewRecord) -> LogRecord:
    return LogRecord(17, 0, record.key, record.value, record.headers)


@given(events, st.sampled_from(["binary", "structured"]))
def test_an_event_comes_back_from_its_record(event: NewEvent, mode: str) -> None:
    record = encode_event(event, mode="structured" if mode == "structured" else "binary", trace=TRACE)
    decoded = decode(as_read(record), AT)
    meta = decoded.meta
    assert (meta.id, meta.source, meta.type, meta.subject) == (event.id, event.source, event.type, event.subject)
    assert (meta.key, meta.extensions) == (event.key, event.extensions)
    assert bytes(decoded.data) == event.data
    assert decoded.trace == TRACE
    assert (meta.time is None) == (event.time_ms is None)
    if meta.time is not None and event.time_ms is not None:
        assert parse_time(meta.time).timestamp() * 1000 == pytest.approx(event.time_ms, abs=0.01)


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_text_comes_back_as_a_string(mode: str) -> None:
    event = NewEvent(id="1", source="/s", type="t", data='a "é"\n'.encode(), datacontenttype="text/plain")
    record = encode_event(event, mode="structured" if mode == "structured" else "binary")
    assert decode(as_read(record), AT).plain().data == 'a "é"\n'


def test_a_result_has_the_headers_of_the_contract() -> None:
    provenance = Provenance(
        run_id="3.ab", workflow="shop/fulfil", source="orders/3/17", trace=TRACE, correlation_id="c-1"
    )
    record = encode_output(ORDER, provenance)
    assert (record.key, record.value) == (b"o-1", b'{"order":"o-1"}')
    assert record.headers == (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"3.ab-4"),
        ("ce_source", b"headrace:shop/fulfil"),
        ("ce_type", b"com.shop.order.fulfilled"),
        ("ce_subject", b"o-1"),
        ("ce_time", b"2025-11-21T10:45:00.123Z"),
        ("content-type", b"application/json"),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", b"headrace=x,a=1"),
        ("headrace-run-id", b"3.ab"),
        ("headrace-workflow", b"shop/fulfil"),
        ("headrace-source", b"orders/3/17"),
        ("headrace-correlation-id", b"c-1"),
    )
    assert encode_output(ORDER, provenance) == record


def test_a_result_is_a_source_of_the_next_run() -> None:
    record = encode_output(ORDER, Provenance(run_id="3.ab", workflow="shop/fulfil"))
    assert decode(as_read(record), AT).meta.subject == "o-1"


@given(st.text(st.characters(), max_size=30))
def test_no_text_breaks_a_header(text: str) -> None:
    event = NewEvent(id="1", source="/s", type="t", data=b"1", subject=text, key=text)
    record = encode_output(event, Provenance(run_id=text, workflow=text, source=text, correlation_id=text))
    for _, value in record.headers:
        assert not set(value.decode()) & {chr(code) for code in (*range(32), *range(127, 160))}
    assert record.key != b""


def test_control_characters_are_percent_encoded() -> None:
    assert header_text("a\r\nb\0é\x85\ud800") == "a%0D%0Ab%00é%C2%85?".encode()
    assert header_text("100 % ok") == b"100 % ok"


@pytest.mark.parametrize(
    ("event", "code", "attribute"),
    [
        (msgspec.structs.replace(ORDER, id=""), "HR3011", "id"),
        (msgspec.structs.replace(ORDER, id="a\nb"), "HR3011", "id"),
        (msgspec.structs.replace(ORDER, source="not a uri"), "HR3011", "source"),
        (msgspec.structs.replace(ORDER, data=b"{"), "HR3006", None),
        (msgspec.structs.replace(ORDER, data=b"<a/>", datacontenttype="application/xml"), "HR3019", "datacontenttype"),
        (msgspec.structs.replace(ORDER, data=b"\xff", datacontenttype="text/plain"), "HR3020", "data"),
        (msgspec.structs.replace(ORDER, extensions={"id": "x"}), "HR3013", "id"),
        (msgspec.structs.replace(ORDER, extensions={"data": "x"}), "HR3013", "data"),
        (msgspec.structs.replace(ORDER, extensions={"My": "x"}), "HR3012", "'My'"),
    ],
)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_an_event_that_would_be_refused_is_not_encoded(
    event: NewEvent, code: str, attribute: str | None, mode: str
) -> None:
    with pytest.raises(EventRejected) as caught:
        encode_event(event, mode="structured" if mode == "structured" else "binary")
    assert (caught.value.code, caught.value.attribute) == (code, attribute)


def test_publishing_has_the_routers_limits() -> None:
    with pytest.raises(EventRejected) as caught:
        encode_event(ORDER, limits=EventLimits(payload_bytes_max=5))
    assert caught.value.code == "HR3004"
