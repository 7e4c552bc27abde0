# pyright: reportMissingTypeStubs=false
"""Record batches as Kafka stores them: unpacking with a bound, and packing.

aiokafka unpacks a whole batch, however large, before anybody sees it (194 KB became 200 MB). Here a batch is unpacked
by streaming decoders that stop at a limit; what aiokafka's compiled parser then gets is never compressed.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cramjam
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from headrace.topics.log import LogRecord, NewRecord

_HEADER = struct.Struct(">qiibIhiqqqhii")  # record batch v2, see KIP-98
_LOG_OVERHEAD = 12  # base offset and length, in every format
_MAGIC_AT = 16
_ATTRIBUTES_AT = 21
_CODEC_MASK, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_GZIP_STEP_BYTES = 1024 * 1024
SMALL_BYTES_MAX = 1024 * 1024  # unpacked on the event loop (1 ms); more goes to a thread
_BOMB_BYTES = 256 * 1024
_NO_LIMIT = 2**31 - 1  # of aiokafka's builder: the producer cuts batches
_COMPRESS_BYTES_MIN = 16 * 1024  # zstd takes 20 us for a batch of any size: smaller ones are not worth it


class TooLarge(Exception):
    """A batch would unpack to more than the limit."""


class Corrupt(Exception):
    """A batch cannot be unpacked."""


class StoredBatch(NamedTuple):
    """A batch as it came, with what its header says. Offsets: both ends included."""

    base_offset: int
    last_offset: int
    magic: int
    attributes: int
    timestamp_ms: int  # the append time, or the newest create time
    producer_id: int
    record_count: int
    data: bytes

    @property
    def codec(self) -> int:
        return self.attributes & _CODEC_MASK if self.magic >= 2 else 0

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & _CONTROL)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def is_abort(self) -> bool:
        """Of a control batch: it ends its producer's transaction without effect. The key is (version, type): 0 is
        abort.
        """
        key = next(iter(records_of(self.data))).key
        return key is not None and len(key) >= 4 and int.from_bytes(key[2:4], "big") == 0


def batches_in(data: memoryview) -> Iterator[StoredBatch]:
    """The whole batches of a fetched record set; a part of one at its end is left out. Bytes are copied: a response may
    be large.
    """
    at, size = 0, len(data)
    while size - at >= _HEADER.size:
        base, length = struct.unpack_from(">qi", data, at)
        end = at + _LOG_OVERHEAD + length
        if end > size:
            return
        magic = data[at + _MAGIC_AT]
        if magic >= 2:
            header = _HEADER.unpack_from(data, at)
            last = base + header[6]
            yield StoredBatch(base, last, magic, header[5], header[8], header[9], header[12], bytes(data[at:end]))
        else:  # before Kafka 0.11: the offset is the last one's
            yield StoredBatch(base, base, magic, 0, -1, -1, 1, bytes(data[at:end]))
        at = end


def crc_holds(batch: StoredBatch) -> bool:
    """Whether the batch is what its writer wrote (CRC-32C)."""
    return DefaultRecordBatch(batch.data).validate_crc()


def unpacked(batch: StoredBatch, limit: int) -> bytes | bytearray:
    """The batch uncompressed. Raises `TooLarge` over `limit` bytes, having allocated no more than that; `Corrupt`."""
    if not batch.codec:
        return batch.data
    data = decompressed(batch.codec, memoryview(batch.data)[_HEADER.size :], limit)
    data[: _HEADER.size] = batch.data[: _HEADER.size]
    struct.pack_into(">h", data, _ATTRIBUTES_AT, batch.attributes & ~_CODEC_MASK)
    return data


def decompressed(codec: int, data: memoryview, limit: int) -> bytearray:
    """The bytes of a compressed record set, behind room for a batch header. Raises `TooLarge`, `Corrupt`."""
    try:
        match codec:
            case 1:
                return _gunzip(data, limit)
            case 2:
                return _unsnappy(data, limit)
            case 3:
                return _into(cramjam.lz4.decompress_into, data, limit)
            case 4:
                return _into(cramjam.zstd.decompress_into, data, limit)
            case _:
                raise Corrupt(f"compression codec {codec} is not known")
    except (cramjam.DecompressionError, zlib.error, struct.error) as error:
        raise Corrupt(str(error)) from error


def _gunzip(data: memoryview, limit: int) -> bytearray:
    rest: memoryview | bytes = data
    out = bytearray(_HEADER.size)
    while rest:  # members may follow each other
        member = zlib.decompressobj(wbits=31)
        while not member.eof and rest:
            out += member.decompress(rest, _GZIP_STEP_BYTES)
            if len(out) - _HEADER.size > limit:
                raise TooLarge
            rest = member.unconsumed_tail
        if not member.eof:
            raise Corrupt("the gzip stream ends too early")
        rest = member.unused_data
    return out


def _unsnappy(data: memoryview, limit: int) -> bytearray:
    out = bytearray(_HEADER.size)
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        out += _unsnappy_block(data, limit)
        return out
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        at += 4
        out += _unsnappy_block(data[at : at + length], limit + _HEADER.size - len(out))
        at += length
    return out


def _unsnappy_block(data: memoryview, limit: int) -> Any:
    if cramjam.snappy.decompress_raw_len(data) > limit:
        raise TooLarge
    return memoryview(cramjam.snappy.decompress_raw(data))


def _into(decoder: Any, data: memoryview, limit: int) -> bytearray:
    """Decode into a buffer of the usual ratio first, then into larger ones: the decoders stop at its end."""
    room = min(limit, max(64 * 1024, 8 * len(data)))
    while True:
        out = bytearray(_HEADER.size + room)
        try:
            size: int = decoder(data, memoryview(out)[_HEADER.size :])
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
            if room >= limit:
                raise TooLarge from error
            room = min(limit, room * 8)
        else:
            del out[_HEADER.size + size :]
            return out


def records_of(data: bytes | bytearray) -> Iterator[LogRecord]:
    """The records of an uncompressed batch, parsed one by one."""
    for record in DefaultRecordBatch(data):
        headers = record.headers
        yield LogRecord(
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple([(name, value or b"") for name, value in headers]) if headers else (),
        )


def records_leniently(data: bytes | bytearray) -> Iterator[LogRecord]:
    """The same, slowly, for a batch with header names that are no UTF-8: their odd bytes become backslash escapes."""
    base, *_, attributes, _, first_ms, newest_ms, _, _, _, count = _HEADER.unpack_from(data)
    at = _HEADER.size
    for _ in range(count):
        length, at = _varint(data, at)
        end = at + length
        delta_ms, at = _varint(data, at + 1)  # after the attributes
        delta, at = _varint(data, at)
        key, at = _field(data, at)
        value, at = _field(data, at)
        headers: list[tuple[str, bytes]] = []
        header_count, at = _varint(data, at)
        for _ in range(header_count):
            name, at = _field(data, at)
            content, at = _field(data, at)
            headers.append(((name or b"").decode(errors="backslashreplace"), content or b""))
        if at != end:
            raise Corrupt(f"the record at offset {base + delta} does not end where it says")
        timestamp_ms = newest_ms if attributes & _APPEND_TIME else first_ms + delta_ms
        yield LogRecord(base + delta, timestamp_ms, key, value, tuple(headers))


def _field(data: bytes | bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    if length < 0:
        return None, at
    if at + length > len(data):
        raise Corrupt("a field is longer than its batch")
    return bytes(data[at : at + length]), at + length


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """A zigzag number and where it ends."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Corrupt("a number has no end")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at


def packed(
    records: Sequence[NewRecord],
    producer_id: int,
    epoch: int,
    sequence: int,
    *,
    timestamp_ms: int,
    size: int | None = None,
) -> bytes:
    """A batch of all these records, compressed (zstd) if that is worth while. Raises `UnicodeError` for a header name.

    `size` is about how many bytes they have, if that is known.
    """
    if size is None:
        size = sum(record.size for record in records)
    codec = _ZSTD if size >= _COMPRESS_BYTES_MIN else 0
    builder = DefaultRecordBatchBuilder(2, codec, 0, producer_id, epoch, sequence, _NO_LIMIT)
    for offset, record in enumerate(records):
        builder.append(offset, timestamp_ms, record.key, record.value, list(record.headers))
    return bytes(builder.build())


def codecs_are_bounded() -> tuple[str, ...]:
    """The codecs whose decoders stop at a limit, tried with a small bomb over a small limit."""
    bomb = bytes(_BOMB_BYTES)
    bombs: dict[str, tuple[int, Any]] = {
        "gzip": (_GZIP, gzip.compress(bomb)),
        "snappy": (_SNAPPY, cramjam.snappy.compress_raw(bomb)),
        "lz4": (_LZ4, cramjam.lz4.compress(bomb)),
        "zstd": (_ZSTD, cramjam.zstd.compress(bomb)),
    }
    bounded: list[str] = []
    for name, (codec, data) in bombs.items():
        view = memoryview(bytes(data))
        try:
            decompressed(codec, view, _BOMB_BYTES - 1)
        except TooLarge:
            if len(decompressed(codec, view, _BOMB_BYTES)) == _HEADER.size + _BOMB_BYTES:
                bounded.append(name)
    return tuple(bounded)
