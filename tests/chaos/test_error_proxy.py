"""The proxy that makes brokers err: what it changes in an answer, and that it changes nothing else."""

import struct

from aiokafka.protocol.group import HeartbeatResponse_v1
from aiokafka.protocol.produce import ProduceResponse_v3

from headrace.topics.fetch_kafka import FetchResponse
from tests.chaos.error_proxy import FETCH, FETCH_VERSION, changed

HEAD = struct.pack(">i", 7)  # the correlation id


def test_an_error_stands_in_every_partition_of_the_answer_and_the_rest_stays() -> None:
    answer = ProduceResponse_v3(
        topics=[("a", [(0, 0, 10, -1), (1, 0, 11, -1)]), ("b", [(5, 0, 12, -1)])], throttle_time_ms=3
    )
    new = changed(0, 3, HEAD + answer.encode(), 6)
    assert new is not None
    assert new[:4] == HEAD
    read = ProduceResponse_v3.decode(new[4:])
    assert read.get_item("topics") == [("a", [(0, 6, 10, -1), (1, 6, 11, -1)]), ("b", [(5, 6, 12, -1)])]
    assert read.get_item("throttle_time_ms") == 3


def test_an_answer_with_one_error_for_all() -> None:
    new = changed(12, 1, HEAD + HeartbeatResponse_v1(throttle_time_ms=0, error_code=0).encode(), -1)
    assert new is not None
    assert HeartbeatResponse_v1.decode(new[4:]).get_item("error_code") == -1


def test_an_answer_without_anything_to_err_about_is_no_hit() -> None:
    answer = ProduceResponse_v3(topics=[], throttle_time_ms=0)
    assert changed(0, 3, HEAD + answer.encode(), 6) is None
    assert changed(0, 99, HEAD, 6) is None


def test_fetched_partitions_err_with_their_records_and_the_session_as_a_whole() -> None:
    def partition(number: int, data: bytes, aborted: tuple[int, ...] = ()) -> bytes:
        listed = struct.pack(f">i{len(aborted)}q", len(aborted) // 2, *aborted)
        return struct.pack(">ihqqq", number, 0, 9, 9, 0) + listed + struct.pack(">ii", -1, len(data)) + data

    topic = struct.pack(">h", 2) + b"in" + struct.pack(">i", 2) + partition(0, b"records", (1, 2)) + partition(1, b"")
    answer = HEAD + struct.pack(">ihii", 0, 0, 77, 1) + topic
    new = changed(FETCH, FETCH_VERSION, answer, 6)
    assert new is not None
    read = FetchResponse.decode(new[4:])
    assert [(each.partition, each.error, bytes(each.data)) for each in read.found] == [(0, 6, b"records"), (1, 6, b"")]
    assert (read.error, read.session_id) == (0, 77)
    lost = changed(FETCH, FETCH_VERSION, answer, 70)
    assert lost is not None
    assert FetchResponse.decode(lost[4:]).error == 70
    assert [each.error for each in FetchResponse.decode(lost[4:]).found] == [0, 0]
