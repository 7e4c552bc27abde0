"""Frozen answers: they decide where runs and users' records lie."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.partition_hash import kafka_partition_of, murmur2, partition_of

# From Kafka's own UtilsTest (signed there).
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", MURMUR2)
def test_murmur2_is_kafkas(key: bytes) -> None:
    assert murmur2(key) == MURMUR2[key] & 0xFFFFFFFF


@given(st.binary(max_size=300), st.integers(min_value=1, max_value=1000))
def test_kafkas_partition_is_what_the_client_library_says(key: bytes, partitions: int) -> None:
    from aiokafka.partitioner import DefaultPartitioner

    every = list(range(partitions))
    assert kafka_partition_of(key, partitions) == DefaultPartitioner()(key, every, every)


@pytest.mark.parametrize(
    ("key", "partitions", "expected"),
    [
        (b"", 64, 0),
        (b"a", 64, 55),
        (b"order-1", 64, 8),
        (b"order-2", 64, 31),
        (b"order-1", 8, 0),
        ("größe".encode(), 12, 3),
        (bytes(range(256)), 1000, 880),
    ],
)
def test_the_run_logs_partition_never_changes(key: bytes, partitions: int, expected: int) -> None:
    assert partition_of(key, partitions) == expected


@given(st.binary(), st.integers(min_value=1, max_value=10_000))
def test_a_partition_is_one_of_those_there_are(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions
    assert 0 <= kafka_partition_of(key, partitions) < partitions


@pytest.mark.parametrize("pattern", ["order-{}", "{}", "2026-11-21/{:08}", "{:x}-tail"])
def test_keys_that_count_up_spread_evenly(pattern: str) -> None:
    found = Counter(partition_of(pattern.format(number).encode(), 64) for number in range(64_000))
    assert len(found) == 64
    assert max(found.values()) < 1200  # 1 000 each, with a deviation of 32
    assert min(found.values()) > 800
