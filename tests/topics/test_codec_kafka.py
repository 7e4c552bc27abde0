"""Unpacking with a bound: four codecs, honest data, bombs, rubbish."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import cramjam
import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from hypothesis import given
from hypothesis import strategies as st

from headrace.topics.codec_kafka import (
    Corrupt,
    TooLarge,
    batches_in,
    codecs_are_bounded,
    crc_holds,
    decompressed,
    packed,
    records_leniently,
    records_of,
    unpacked,
)
from headrace.topics.log import NewRecord

HEADER = 61
CODECS: dict[str, tuple[int, Any]] = {
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "snappy_raw": (2, lambda data: snappy_encode(data, xerial_compatible=False)),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}


@pytest.mark.parametrize("name", CODECS)
@given(data=st.binary(min_size=1, max_size=2000), repeat=st.integers(min_value=1, max_value=200))
def test_what_another_client_packed_is_unpacked(name: str, data: bytes, repeat: int) -> None:
    codec, encode = CODECS[name]
    whole = data * repeat
    found = decompressed(codec, memoryview(bytes(encode(whole))), len(whole))
    assert found[HEADER:] == whole
    with pytest.raises(TooLarge):
        decompressed(codec, memoryview(bytes(encode(whole))), len(whole) - 1)


def test_gzip_members_may_follow_each_other() -> None:
    data = gzip.compress(b"a" * 100) + gzip.compress(b"b" * 100)
    assert decompressed(1, memoryview(data), 200)[HEADER:] == b"a" * 100 + b"b" * 100
    with pytest.raises(TooLarge):
        decompressed(1, memoryview(data), 199)


@pytest.mark.parametrize("name", CODECS)
@given(rubbish=st.binary(min_size=1, max_size=300))
def test_rubbish_is_corrupt_or_something_within_the_limit(name: str, rubbish: bytes) -> None:
    try:
        found = decompressed(CODECS[name][0], memoryview(rubbish), 10_000)
    except (Corrupt, TooLarge):
        return
    assert len(found) - HEADER <= 10_000


@pytest.mark.parametrize("name", CODECS)
def test_a_stream_that_ends_too_early_is_corrupt(name: str) -> None:
    codec, encode = CODECS[name]
    data = bytes(encode(bytes(range(256)) * 100))
    with pytest.raises(Corrupt):
        decompressed(codec, memoryview(data)[: len(data) // 2], 10**6)


def test_an_unknown_codec_is_corrupt() -> None:
    with pytest.raises(Corrupt):
        decompressed(7, memoryview(b"x"), 10)


def test_the_self_test_sees_all_four_codecs() -> None:
    assert codecs_are_bounded() == ("gzip", "snappy", "lz4", "zstd")


def test_a_bomb_takes_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    """In a process of its own, whose peak is measured: the decoders' memory is not Python's."""
    bomb = bytes(300_000_000)
    (tmp_path / "1").write_bytes(gzip.compress(bomb, 1))
    (tmp_path / "2").write_bytes(bytes(cramjam.snappy.compress_raw(bomb)))
    (tmp_path / "3").write_bytes(bytes(cramjam.lz4.compress(bomb)))
    (tmp_path / "4").write_bytes(bytes(cramjam.zstd.compress(bomb)))
    del bomb
    program = f"""
import resource
from pathlib import Path
from headrace.topics.codec_kafka import TooLarge, decompressed
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for codec in (1, 2, 3, 4):
    data = (Path({str(tmp_path)!r}) / str(codec)).read_bytes()
    try:
        decompressed(codec, memoryview(data), 8 * 1024 * 1024)
    except TooLarge:
        print("bounded")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *bounded, peak_kib = done.stdout.split()
    assert bounded == ["bounded"] * 4
    assert int(peak_kib) < 64 * 1024  # 14 MB of bombs as they come, 8 MB of limit, twice, and some


@given(
    st.lists(
        st.builds(NewRecord, value=st.none() | st.binary(max_size=2000), key=st.none() | st.binary(max_size=9)),
        min_size=1,
    )
)
def test_packing_and_unpacking_give_the_records_back(some: list[NewRecord]) -> None:
    data = packed(some, 7, 3, 11, timestamp_ms=1_800_000_000_000)
    (batch,) = batches_in(memoryview(data))
    assert crc_holds(batch)
    assert (batch.base_offset, batch.last_offset, batch.producer_id) == (0, len(some) - 1, 7)
    found = list(records_of(unpacked(batch, 10**7)))
    assert [(record.key, record.value, record.offset) for record in found] == [
        (record.key, record.value, offset) for offset, record in enumerate(some)
    ]
    assert {record.timestamp_ms for record in found} == {1_800_000_000_000}


def test_a_header_name_that_is_no_utf8_is_read_with_escapes() -> None:
    some = [NewRecord(b"v", key=b"k", headers=(("name", b"1"), ("other", b"")))]
    data = packed(some, -1, -1, -1, timestamp_ms=5).replace(b"name", b"n\xffme")
    with pytest.raises(UnicodeDecodeError):
        list(records_of(data))
    (record,) = records_leniently(data)
    assert (record.key, record.value, record.timestamp_ms) == (b"k", b"v", 5)
    assert record.headers == (("n\\xffme", b"1"), ("other", b""))


@given(
    st.lists(
        st.builds(
            NewRecord,
            value=st.none() | st.binary(max_size=300),
            key=st.none() | st.binary(max_size=9),
            headers=st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.binary(max_size=9))).map(tuple),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_the_lenient_parser_reads_what_the_other_reads(some: list[NewRecord]) -> None:
    (batch,) = batches_in(memoryview(packed(some, -1, -1, -1, timestamp_ms=1_800_000_000_000)))
    data = unpacked(batch, 10**7)
    assert list(records_leniently(data)) == list(records_of(data))


@given(st.integers(min_value=0, max_value=200))
def test_the_cut_off_end_of_a_record_set_is_left_out(cut: int) -> None:
    one = packed([NewRecord(b"x" * 30)], -1, -1, -1, timestamp_ms=1)
    whole = one * 3
    assert len(list(batches_in(memoryview(whole)[: len(whole) - cut]))) == max(0, 3 - -(-cut // len(one)))


def test_a_changed_byte_breaks_the_checksum() -> None:
    data = bytearray(packed([NewRecord(b"hello")], -1, -1, -1, timestamp_ms=1))
    data[-3] ^= 1
    (batch,) = batches_in(memoryview(data))
    assert not crc_holds(batch)
