"""Counting between scrapes: buckets as Prometheus means them, and a bound on the number of series."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from headrace.observability.accumulator import LABEL_LENGTH_MAX, OTHER, Budget, Counts, Distribution, clean
from headrace.observability.metrics import BY_NAME

ATTEMPTS = BY_NAME["task_attempts_total"]
DURATION = BY_NAME["task_duration_seconds"]
CONSUMED = BY_NAME["events_consumed_total"]


@given(st.lists(st.floats(min_value=0, max_value=1e6, allow_nan=False)))
def test_a_bucket_counts_what_is_not_above_its_bound(values: list[float]) -> None:
    distribution = Distribution(DURATION, Budget())
    for value in values:
        distribution.observe(("w", "t"), value)
    counts = distribution.cell(("w", "t")).counts
    for index, bound in enumerate(DURATION.buckets):
        assert sum(counts[: index + 1]) == sum(value <= bound for value in values)
    assert sum(counts) == len(values)


def test_a_value_on_a_bound_belongs_to_it() -> None:
    cell = Distribution(DURATION, Budget()).cell(("w", "t"))
    cell.observe(DURATION.buckets[3], times=2)
    assert cell.counts[3] == 2 == sum(cell.counts)
    assert bisect_left(DURATION.buckets, DURATION.buckets[3]) == 3


def test_over_the_budget_the_task_label_is_dropped_and_then_everything_open_ended() -> None:
    exceeded: list[str] = []
    budget = Budget(2, exceeded.append)
    counts = Counts(ATTEMPTS, budget)
    counts.add(("fulfil", "", "failed"))
    counts.add(("fulfil", "charge", "failed"))
    counts.add(("fulfil", "ship", "failed"))  # its workflow has a series without a task
    counts.add(("refund", "pay", "failed"))  # nothing of it is known
    counts.add(("return", "pay", "failed"))
    assert counts.values == {
        ("fulfil", "", "failed"): 2,
        ("fulfil", "charge", "failed"): 1,
        (OTHER, OTHER, "failed"): 2,
    }
    assert exceeded == [ATTEMPTS.full_name]
    assert budget.folded == 3


def test_ten_thousand_names_make_no_more_series_than_the_budget() -> None:
    budget = Budget(500)
    durations, counts = Distribution(DURATION, budget), Counts(CONSUMED, budget)
    for number in range(10_000):
        durations.observe((f"workflow-{number}", "task"), 1)
        counts.add((f"topic-{number}",))
    assert len(durations.cells) * DURATION.series + len(counts.values) <= 500 + DURATION.series + 1
    assert sum(sum(cell.counts) for cell in durations.cells.values()) == 10_000
    assert sum(counts.values.values()) == 10_000


def test_a_series_that_is_known_costs_nothing_more() -> None:
    budget = Budget(100)
    counts = Counts(CONSUMED, budget)
    for _ in range(5):
        counts.add(("orders",))
    assert budget.series == 1


@given(st.text(max_size=300))
def test_any_text_becomes_a_label_that_can_be_sent(text: str) -> None:
    value = clean(text)
    assert value.isprintable()
    assert len(value) <= LABEL_LENGTH_MAX
    assert clean(value) == value
    value.encode()
