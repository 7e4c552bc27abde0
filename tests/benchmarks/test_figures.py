"""The figures that decide: counting, percentiles, CPU between two moments."""

from benchmarks.figures import Result, completeness, cpu_s, delays_ms, spread
from benchmarks.order import Schedule, number_of, order_body, order_id
from benchmarks.scenario import Loads, scenarios
from benchmarks.usage import Usage

LOADS = Loads(burst=100, rates=(50, 200), seconds=2, warm_up_s=1)


def test_percentiles_are_durations_that_were_seen() -> None:
    found = spread([float(value) for value in range(1, 101)])
    assert (found.p50, found.p95, found.p99, found.max) == (50, 95, 99, 100)
    assert spread([7.0]) == spread([7.0, 7.0])


def test_lost_doubled_and_strange_results_are_counted() -> None:
    seen = [Result(order_id(number), 0, 0.0) for number in (0, 1, 1, 3, 9)] + [Result("other", 0, 0.0)]
    found = completeness(seen, orders=5)
    assert (found.lost, found.doubled, found.strange) == (2, 1, 2)
    assert not found.complete
    assert completeness([Result(order_id(0), 0, 0.0)], orders=1).complete


def test_delays_count_from_the_due_time_without_the_warm_up() -> None:
    schedule = Schedule(start_us=1_000_000, rate=100, count=3)  # due at 1000, 1010, 1020 ms
    seen = [Result(order_id(2), 1_025, 1_026_000), Result(order_id(1), 1_012, 1_013_000), Result(order_id(0), 9_999, 0)]
    appended, received = delays_ms(seen, schedule, first=1)
    assert sorted(appended) == [2.5, 5.5]  # the middle of the millisecond
    assert sorted(received) == [3.0, 6.0]


def test_a_double_does_not_replace_the_first_result() -> None:
    schedule = Schedule(start_us=0, rate=100, count=1)
    appended, _ = delays_ms([Result(order_id(0), 4, 0), Result(order_id(0), 90, 0)], schedule, first=0)
    assert appended == [4.5]


def test_cpu_is_interpolated_between_looks() -> None:
    samples = [Usage(0, 1.0, 0), Usage(100, 2.0, 0), Usage(200, 4.0, 0)]
    assert cpu_s(samples, 50, 150) == 1.5
    assert cpu_s(samples, 100, 1_000) == 2.0


def test_an_order_finds_back_to_its_number() -> None:
    assert [number_of(order_id(number)) for number in (0, 7, 19_999)] == [0, 7, 19_999]
    assert number_of("order-x") == number_of("else") == -1
    assert order_id(12).encode() in order_body(12)


def test_scenarios_are_chosen_by_pattern_or_beginning() -> None:
    names = [one.name for one in scenarios(LOADS)]
    assert names[:3] == ["floor-burst", "floor-50", "floor-200"]
    assert [one.name for one in scenarios(LOADS, ["kafka-b", "*-200"])] == [
        "floor-200",
        "kafka-burst",
        "kafka-200",
        "eight-200",
        "embedded-200",
    ]
    [chosen] = scenarios(LOADS, ["embedded-50"])
    assert (chosen.orders, chosen.warm_up, chosen.measured) == (150, 50, 100)
