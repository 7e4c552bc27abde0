# ruff: noqa: ARG005, PLW0108 - filters and keys as users write them
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from headrace.service.definitions import matcher
from headrace.service.definitions.app import AnyWorkflow
from headrace.service.definitions.matcher import Clause, Matched, Matcher, Refused, Unmatched
from headrace.service.definitions.trigger import EventTrigger
from headrace.service.definitions.workflow import workflow
from headrace.service.engine.run import Run
from headrace.topics.command import OnConflict, SourceRecord, Start
from headrace.topics.dead_letter import Stage
from headrace.topics.event import DecodedEvent, Event, EventMeta
from headrace.topics.log import LogRecord
from headrace.topics.trace_context import TraceContext


@dataclass
class Order:
    id: str
    total: float = 0


def flow(*on: EventTrigger, name: str = "fulfil", **options: Any) -> AnyWorkflow:
    async def function(run: Run, order: Order) -> None: ...

    return workflow(on=on, name=name, **options)(function)


def event(data: object = None, *, topic: str = "orders", type: str = "placed", **meta: Any) -> DecodedEvent:
    raw = msgspec.json.encode({"id": "o-1", "total": 3} if data is None else data)
    trace = meta.pop("trace", None)
    known = {"id": "e-1", "source": "web", "partition": 2, "offset": 7, "key": "k"} | meta
    return DecodedEvent(meta=EventMeta(topic=topic, type=type, **known), data=msgspec.Raw(raw), trace=trace)


RECORD = LogRecord(7, 1_700_000_000_000, b"k", b'{"id":"o-1"}', (("h", b"v"),))


def matched(workflows: list[AnyWorkflow], what: DecodedEvent) -> list[str]:
    found = Matcher(workflows).match(what, RECORD)
    return [start.workflow for start in found.starts] if isinstance(found, Matched) else []


def test_a_match_is_a_start_with_all_that_the_router_needs() -> None:
    made = flow(
        EventTrigger("orders", "placed"), key=lambda order: order.id, namespace="shop", version="3", timeout="2s"
    )
    trace = TraceContext("a" * 32, "b" * 16, state="x=y")
    what = event(trace=trace)
    assert Matcher([made]).match(what, RECORD) == Matched(
        (
            Start(
                namespace="shop",
                workflow="fulfil",
                version="3",
                input=what.data,
                key="o-1",
                policy=OnConflict.QUEUE,
                timeout_ms=2000,
                event=what.meta,
                event_at_ms=1_700_000_000_000,
                traceparent=trace.traceparent,
                tracestate="x=y",
            ),
        )
    )


def test_without_a_key_the_policy_is_allow() -> None:
    found = Matcher([flow(EventTrigger("orders"))]).match(event(), RECORD)
    assert isinstance(found, Matched)
    assert (found.starts[0].key, found.starts[0].policy) == (None, OnConflict.ALLOW)
    assert (found.starts[0].traceparent, found.starts[0].tracestate, found.starts[0].record) == (None, None, None)


def test_a_start_that_may_be_rejected_carries_its_record() -> None:
    made = flow(EventTrigger("orders"), key=lambda order: order.id, on_conflict="reject")
    found = Matcher([made]).match(event(), RECORD)
    assert isinstance(found, Matched)
    assert found.starts[0].record == SourceRecord(
        key=b"k", value=b'{"id":"o-1"}', headers=(("h", b"v"),), timestamp_ms=1_700_000_000_000
    )


@pytest.mark.parametrize(
    ("trigger", "what", "reason"),
    [
        (EventTrigger("payments"), event(), "no trigger on topic orders"),
        (EventTrigger("orders", "paid"), event(), "type placed not among paid"),
        (EventTrigger("orders", "placed", attributes={"source": "shop"}), event(), "attributes differ (type placed)"),
        (EventTrigger("orders", attributes={"tenant": "a"}), event(), "attributes differ (type placed)"),
        (EventTrigger("orders", attributes={"source": "web", "tenant": "a"}), event(), "attributes differ (type placed)"),
        (EventTrigger("orders", filter=lambda event: False), event(), "filter false (fulfil)"),
        (EventTrigger("orders", filter=lambda event: None), event(), "filter false (fulfil)"),  # type: ignore[arg-type, return-value]
        (EventTrigger("orders", "x"), event(type="a\nb" + "c" * 300), "type a b" + "c" * 197 + " not among x"),
    ],
)  # fmt: skip
def test_no_match_has_a_reason(trigger: EventTrigger, what: DecodedEvent, reason: str) -> None:
    assert Matcher([flow(trigger)]).match(what, RECORD) == Unmatched(reason)


def test_a_reason_lists_a_few_types_in_order() -> None:
    found = Matcher([flow(*(EventTrigger("orders", f"t{n}") for n in range(8)))]).match(event(), RECORD)
    assert found == Unmatched("type placed not among t0, t1, t2, t3, t4 and 3 more")


def test_what_nobody_waits_for_costs_the_same_however_many_types_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Matcher([flow(EventTrigger("orders", "t"))])
    monkeypatch.delattr(matcher, "_listed")  # the types are put into words when the definitions are loaded
    assert made.match(event(), RECORD) == Unmatched("type placed not among t")


@pytest.mark.parametrize(
    "trigger",
    [
        EventTrigger("orders"),
        EventTrigger("orders", "placed"),
        EventTrigger("orders", attributes={"source": "web"}),
        EventTrigger("orders", attributes={"id": "e-1", "subject": "s", "tenant": "a", "datacontenttype": "application/json"}),
        EventTrigger("orders", filter=lambda event: event.data["total"] == 3),
        EventTrigger("orders", filter=lambda event: event.extensions["tenant"] == "a" and event.offset == 7),
        EventTrigger("orders", filter=lambda event: [0]),  # type: ignore[arg-type, return-value]
    ],
)  # fmt: skip
def test_all_that_is_given_holds(trigger: EventTrigger) -> None:
    assert matched([flow(trigger)], event(subject="s", extensions={"tenant": "a"})) == ["fulfil"]


def test_one_event_may_start_several_workflows_each_once() -> None:
    workflows = [
        flow(EventTrigger("orders"), EventTrigger("orders", "placed"), name="a"),
        flow(EventTrigger("orders", filter=lambda event: False), EventTrigger("orders"), name="b"),
        flow(EventTrigger("orders", "paid"), name="c"),
        flow(EventTrigger("orders", attributes={"source": "web"}), name="d"),
        flow(EventTrigger("orders"), name="a", namespace="other"),
    ]
    assert sorted(matched(workflows, event())) == ["a", "a", "b", "d"]


def test_only_the_newest_version_is_started() -> None:
    workflows = [flow(EventTrigger("orders"), version=version) for version in ("2", "10", "9")]
    found = Matcher(workflows).match(event(), RECORD)
    assert isinstance(found, Matched)
    assert [start.version for start in found.starts] == ["10"]


def test_a_trigger_that_the_newest_version_dropped_is_gone() -> None:
    workflows = [flow(EventTrigger("orders"), version="1"), flow(EventTrigger("payments"), version="2")]
    assert Matcher(workflows).topics == ("payments",)
    assert Matcher(workflows).match(event(), RECORD) == Unmatched("no trigger on topic orders")


def test_thousands_of_triggers_told_apart_by_an_attribute() -> None:
    asked: list[str] = []

    def filter_of(tenant: str) -> Callable[[Event[Any]], bool]:
        return lambda event: asked.append(tenant) is None

    workflows = [
        flow(EventTrigger("orders", attributes={"tenant": f"t{n}"}, filter=filter_of(f"t{n}")), name=f"w{n}")
        for n in range(3000)
    ]
    assert matched(workflows, event(extensions={"tenant": "t1234"})) == ["w1234"]
    assert asked == ["t1234"]


class Stop(BaseException): ...


@pytest.mark.parametrize(
    "error", [ValueError("secret payload"), SystemExit(1), Stop(), KeyboardInterrupt(), RecursionError()]
)
def test_a_filter_that_raises_is_a_dead_letter(error: BaseException) -> None:
    def raising(event: Event[Any]) -> bool:
        raise error

    found = Matcher([flow(EventTrigger("orders"), name="a"), flow(EventTrigger("orders", filter=raising), name="b")])
    refused = found.match(event(), RECORD)
    assert isinstance(refused, Refused)
    assert (refused.stage, refused.code, refused.workflow) == (Stage.MATCH, "HR3030", "b")
    assert f"raised {type(error).__name__} at " in refused.error
    assert f"test_matcher.py:{raising.__code__.co_firstlineno + 1}" in refused.error
    assert "secret" not in refused.error


def test_a_filter_that_gives_a_coroutine_is_a_dead_letter() -> None:
    async def later(event: Event[Any]) -> bool:
        return True

    refused = Matcher([flow(EventTrigger("orders", filter=lambda event: later(event)))]).match(event(), RECORD)  # type: ignore[arg-type, return-value]
    assert refused == Refused(Stage.MATCH, "HR3030", "The filter gave a coroutine, not an answer.", "fulfil")


def test_a_filter_whose_answer_cannot_be_judged_is_a_dead_letter() -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise ValueError

    refused = Matcher([flow(EventTrigger("orders", filter=lambda event: Odd()))]).match(event(), RECORD)  # type: ignore[arg-type, return-value]
    assert isinstance(refused, Refused)
    assert refused.code == "HR3030"


def test_filters_see_plain_json_and_inputs_are_typed() -> None:
    seen: list[object] = []
    made = flow(
        EventTrigger("orders", filter=lambda event: seen.append(event.data) is None),
        key=lambda order: seen.append(order) or order.id,
    )
    assert matched([made], event()) == ["fulfil"]
    assert seen == [{"id": "o-1", "total": 3}, Order("o-1", 3.0)]


def test_a_filter_that_changes_the_data_changes_no_input() -> None:
    made = flow(EventTrigger("orders", filter=lambda event: event.data.clear() is None), key=lambda order: order.id)
    assert matched([made], event()) == ["fulfil"]


def test_one_input_that_does_not_fit_and_nothing_starts() -> None:
    keyed: list[object] = []

    async def wants_text(run: Run, text: str) -> None: ...

    workflows = [
        flow(EventTrigger("orders"), name="a", key=lambda order: keyed.append(order) or "k"),
        workflow(on=EventTrigger("orders"))(wants_text),
    ]
    refused = Matcher(workflows).match(event(), RECORD)
    assert isinstance(refused, Refused)
    assert (refused.stage, refused.code, refused.workflow) == (Stage.START, "HR3033", "wants_text")
    assert "wants_text" in refused.error
    assert keyed == []


def test_a_validator_that_raises_anything_is_a_dead_letter() -> None:
    @dataclass
    class Hostile:
        id: str

        def __post_init__(self) -> None:
            sys.exit(1)

    async def hostile(run: Run, order: Hostile) -> None: ...

    refused = Matcher([workflow(on=EventTrigger("orders"))(hostile)]).match(event(), RECORD)
    assert isinstance(refused, Refused)
    assert (refused.stage, refused.code) == (Stage.START, "HR3033")
    assert "SystemExit" in refused.error


async def later(order: object) -> str:
    return "k"


@pytest.mark.parametrize(
    ("key", "code", "said"),
    [
        (lambda order: order.nothing, "HR3031", "AttributeError at "),
        (lambda order: sys.exit(1), "HR3031", "SystemExit at "),
        (lambda order: "", "HR3032", "empty"),
        (lambda order: None, "HR3032", "of type NoneType, not text"),
        (lambda order: 3, "HR3032", "of type int, not text"),
        (lambda order: b"k", "HR3032", "of type bytes, not text"),
        (lambda order: "\ud800", "HR3032", "surrogate"),
        (lambda order: later(order), "HR3032", "a coroutine, not text"),
    ],
)
def test_a_key_that_is_none_is_a_dead_letter(key: Callable[[Any], str], code: str, said: str) -> None:
    refused = Matcher([flow(EventTrigger("orders"), key=key)]).match(event(), RECORD)
    assert isinstance(refused, Refused)
    assert (refused.stage, refused.code, refused.workflow) == (Stage.MATCH, code, "fulfil")
    assert said in refused.error


def test_a_key_of_an_enum_is_its_text() -> None:
    class Shop(StrEnum):
        NORTH = "north"

    found = Matcher([flow(EventTrigger("orders"), key=lambda order: Shop.NORTH)]).match(event(), RECORD)
    assert isinstance(found, Matched)
    assert found.starts[0].key == "north"
    assert type(found.starts[0].key) is str


def raising_filter(event: Event[Any]) -> bool:
    raise ValueError


@pytest.mark.parametrize(
    ("made", "clause", "reason", "stage"),
    [
        (flow(EventTrigger("payments")), Clause.TOPIC, "topic orders is not payments", None),
        (flow(EventTrigger("orders", "paid")), Clause.TYPE, "type placed is not paid", None),
        (flow(EventTrigger("orders", attributes={"source": "a"})), Clause.ATTRIBUTES, "source is 'web', not 'a'", None),
        (flow(EventTrigger("orders", attributes={"tenant": "a"})), Clause.ATTRIBUTES, "tenant is not set, not 'a'", None),
        (flow(EventTrigger("orders", filter=lambda event: False)), Clause.FILTER, "filter false", None),
        (flow(EventTrigger("orders", filter=raising_filter)), Clause.FILTER, "The filter raised ValueError", Stage.MATCH),
        (flow(EventTrigger("orders"), key=lambda order: ""), Clause.KEY, "The key is empty.", Stage.MATCH),
        (flow(EventTrigger("orders"), key=lambda order: order.id), Clause.MATCHES, "", None),
    ],
)  # fmt: skip
def test_each_trigger_says_which_clause_said_no(
    made: AnyWorkflow, clause: Clause, reason: str, stage: Stage | None
) -> None:
    (verdict,) = Matcher([made]).explain(event())
    assert (verdict.workflow, verdict.trigger, verdict.clause, verdict.stage) == (made, made.triggers[0], clause, stage)
    assert verdict.reason.startswith(reason)


def test_an_input_that_does_not_fit_is_explained() -> None:
    (verdict,) = Matcher([flow(EventTrigger("orders"))]).explain(event({"id": 3}))
    assert (verdict.clause, verdict.stage) == (Clause.INPUT, Stage.START)
    assert "$.id" in verdict.reason


def test_every_trigger_of_every_workflow_is_explained() -> None:
    workflows = [flow(EventTrigger("a"), EventTrigger("b"), name="one"), flow(EventTrigger("orders"), name="two")]
    verdicts = Matcher(workflows).explain(event())
    assert [(verdict.workflow.name, verdict.trigger.topic, verdict.clause) for verdict in verdicts] == [
        ("one", "a", Clause.TOPIC),
        ("one", "b", Clause.TOPIC),
        ("two", "orders", Clause.MATCHES),
    ]


def test_a_matcher_of_nothing() -> None:
    assert Matcher([]).topics == ()
    assert Matcher([]).match(event(), RECORD) == Unmatched("no trigger on topic orders")
