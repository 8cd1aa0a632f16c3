"""Every message survives the wire, and damaged bytes give CodecError and nothing else."""

from __future__ import annotations

from typing import Any, get_args

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import codec
from protocol.codec import MAGIC, decode, encode
from protocol.errors import CodecError
from protocol.messages import (
    ANSWERS,
    PUSHES,
    REQUESTS,
    AnyMessage,
    Batch,
    Chunk,
    Fetch,
    Heartbeat,
    Hello,
    LedgerState,
)
from protocol.version import PolicyVersion
from tests.protocol.strategies import KINDS, MESSAGES, PLAIN, batches, messages_of


def same(one: Any, other: Any) -> bool:
    """Equality that looks into arrays."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, msgspec.Struct):
        return type(one) is type(other) and all(same(getattr(one, x), getattr(other, x)) for x in one.__struct_fields__)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


def wire(message: AnyMessage) -> list[bytes]:
    return [bytes(frame) for frame in encode(message)]


def is_refused_or_valid(frames: list[bytes]) -> bool:
    """Whether they give a CodecError, or a message that survives the round trip; any other exception is raised."""
    try:
        message = decode(frames)
    except CodecError:
        return True
    return same(decode(wire(message)), message)


# --- round trip -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
def test_every_kind_of_message_survives_the_round_trip(cls: type) -> None:
    @settings(max_examples=25)
    @given(messages_of(cls))
    def check(message: AnyMessage) -> None:
        assert same(decode(wire(message)), message)

    check()


def test_requests_answers_and_pushes_are_all_the_messages() -> None:
    assert set(KINDS) == set(get_args(REQUESTS)) | set(get_args(ANSWERS)) | set(get_args(PUSHES))


def test_arrays_travel_in_frames_of_their_own_and_come_back_read_only() -> None:
    data = np.arange(5, dtype=np.uint8)
    frames = wire(Chunk(version=PolicyVersion(1, 2), offset=3, data=data))
    assert frames[1:] == [data.tobytes()]
    message = decode(frames)
    assert isinstance(message, Chunk)
    with pytest.raises(ValueError, match="read-only"):
        message.data[0] = 1


def test_array_that_is_not_contiguous_travels() -> None:
    data = np.arange(10, dtype=np.uint8)[::2]
    message = decode(wire(Chunk(version=PolicyVersion(1, 2), offset=0, data=data)))
    assert isinstance(message, Chunk)
    assert message.data.tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    "value", [np.zeros(2, np.float16), np.zeros((2, 2), np.float32), 2**70, object(), "\ud800", 1j]
)
def test_what_does_not_travel_is_refused_by_the_sender(value: object) -> None:
    with pytest.raises(CodecError):
        encode(LedgerState(state={"x": value}))


# --- damage -----------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60), max_size=4), st.booleans())
def test_random_bytes_give_a_codec_error(frames: list[bytes], with_magic: bool) -> None:
    if with_magic and frames:
        frames[0] = MAGIC + frames[0]
    with pytest.raises(CodecError):
        decode(frames)


@settings(max_examples=200)
@given(MESSAGES, st.data())
def test_truncated_frames_give_a_codec_error(message: AnyMessage, data: st.DataObject) -> None:
    frames = wire(message)
    number = data.draw(st.integers(0, len(frames) - 1).filter(lambda number: len(frames[number]) > 0))
    frames[number] = frames[number][: data.draw(st.integers(0, len(frames[number]) - 1))]
    with pytest.raises(CodecError):
        decode(frames)


@settings(max_examples=400)
@given(MESSAGES, st.data())
def test_flipped_bits_give_a_valid_message_or_a_codec_error(message: AnyMessage, data: st.DataObject) -> None:
    frames = wire(message)
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(frames) - 1))
        if frames[number]:
            bit = data.draw(st.integers(0, len(frames[number]) * 8 - 1))
            damaged = bytearray(frames[number])
            damaged[bit // 8] ^= 1 << bit % 8
            frames[number] = bytes(damaged)
    assert is_refused_or_valid(frames)


@settings(max_examples=150)
@given(batches(), st.data())
def test_missing_doubled_or_swapped_arrays_never_give_another_error(batch: Batch, data: st.DataObject) -> None:
    frames = wire(batch)
    arrays = data.draw(st.lists(st.sampled_from(frames[1:]), max_size=len(frames) + 2))
    if len(arrays) == len(frames) - 1:
        assert is_refused_or_valid([frames[0], *arrays])
    else:
        with pytest.raises(CodecError):
            decode([frames[0], *arrays])


def packed(body: object, arrays: object) -> bytes:
    return MAGIC + msgpack.packb({"body": body, "arrays": arrays})


@settings(max_examples=200)
@given(PLAIN, PLAIN, st.lists(st.binary(max_size=8), max_size=2))
def test_any_header_gives_a_codec_error_at_worst(body: object, arrays: object, frames: list[bytes]) -> None:
    assert is_refused_or_valid([packed(body, arrays), *frames])


@settings(max_examples=200)
@given(MESSAGES, PLAIN, st.data())
def test_any_value_in_any_field_gives_a_codec_error_at_worst(
    message: AnyMessage, value: object, data: st.DataObject
) -> None:
    frames = wire(message)
    header = msgpack.unpackb(frames[0][len(MAGIC) :])
    header["body"][data.draw(st.sampled_from(sorted(header["body"])))] = value
    frames[0] = MAGIC + msgpack.packb(header)
    assert is_refused_or_valid(frames)


FETCH = {"kind": "fetch", "version": {"incarnation": 1, "step": 0}, "offset": 0, "size": 1}
CHUNK = {"kind": "chunk", "version": {"incarnation": 1, "step": 0}, "offset": 0, "data": {"$": 0}}


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "does not begin with"),
        ([b"RPD2" + packed(FETCH, [])[4:]], "does not begin with"),
        ([packed(FETCH, [["u1", 3]])], "announces 1 arrays, 0 frames"),
        ([packed(FETCH, [["u1", 3]]), b"ab"], "does not fit a frame of 2 bytes"),
        ([packed(CHUNK, [["f8", 1]]), b"8 bytes!"], "does not fit"),
        ([packed(CHUNK, [["u1", -1]]), b""], "does not fit"),
        ([packed(CHUNK, [])], "reference to one of 0 arrays"),
        ([packed({**CHUNK, "data": {"$": True}}, [["u1", 1]]), b"a"], "reference to one of 1 arrays"),
        ([packed({**CHUNK, "data": {"$": -1}}, [["u1", 1]]), b"a"], "reference to one of 1 arrays"),
        ([packed({**FETCH, "kind": "pickle"}, [])], "not a valid message"),
        ([packed({**FETCH, "size": 0}, [])], "not a valid message"),
        ([packed({**FETCH, "version": {"incarnation": 0, "step": 0}}, [])], "incarnation >= 1"),
        ([MAGIC + msgpack.packb({"body": {}})], "not a map of 'body' and 'arrays'"),
        ([MAGIC + msgpack.packb([1]) + b"rest"], "not msgpack"),
        ([MAGIC + b"\x91" * 5000 + b"\xc0"], "not msgpack"),
    ],
)
def test_each_kind_of_damage_is_named(frames: list[bytes], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode(frames)


def test_extension_types_do_not_get_in() -> None:
    body = {"kind": "ledgerstate", "state": {"x": msgpack.ExtType(5, b"abc")}}
    with pytest.raises(CodecError):
        decode([packed(body, [])])
    # A timestamp is read as the number that it stands for.
    assert decode([packed({**body, "state": {"x": msgpack.Timestamp(1, 0)}}, [])]) == LedgerState(state={"x": 1.0})


def test_sizes_are_checked_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    hello = Hello(role="actor", name="x" * 150)
    frames = wire(hello)
    monkeypatch.setattr(codec, "MAX_HEADER_BYTES", 100)
    with pytest.raises(CodecError, match="at most 100"):
        encode(hello)
    with pytest.raises(CodecError, match="at most 100"):
        decode(frames)
    monkeypatch.setattr(codec, "MAX_FRAMES", 3)
    with pytest.raises(CodecError, match="4 frames"):
        decode([b""] * 4)


def test_unknown_field_of_a_newer_peer_is_ignored() -> None:
    assert decode([packed({**FETCH, "priority": 9}, [])]) == Fetch(version=PolicyVersion(1, 0), offset=0, size=1)


def test_absent_field_takes_its_default() -> None:
    assert decode([packed({"kind": "heartbeat", "name": "a"}, [])]) == Heartbeat(name="a")
