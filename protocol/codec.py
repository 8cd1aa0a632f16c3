"""Messages to frames of bytes and back.

    frame 0      magic "RPD1", then a msgpack map {"body": message, "arrays": [[dtype, length], ...]}
    frame 1...   the raw bytes of each array, little-endian, in order

An array inside the body is replaced by {"$": its position}. Nothing is ever unpickled, sizes are checked
before anything is allocated, and whatever the bytes, `decode` returns a valid message or raises CodecError.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec
import numpy as np

from protocol.errors import CodecError
from protocol.messages import AnyMessage

MAGIC = b"RPD1"
MAX_HEADER_BYTES = 16 * 2**20
MAX_FRAMES = 65_536
MAX_ARRAY_BYTES = 2**30
_DTYPES = {"u1": np.uint8, "i4": np.int32, "i8": np.int64, "f4": np.float32}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("Rapid's wire format is little-endian; this machine is not")

Frame = bytes | memoryview


def encode(message: AnyMessage) -> list[Frame]:
    """Frames of a message. Arrays are not copied: their memory must stay unchanged until it is sent.

    Raises:
        CodecError: an array has a dtype that does not travel, or a limit is exceeded.
    """
    arrays: list[np.ndarray] = []

    def place(value: Any) -> dict[str, int]:
        if not isinstance(value, np.ndarray) or value.dtype not in _CODES or value.ndim != 1:
            raise CodecError(f"{type(value).__name__} does not travel; expected 1-d arrays of {sorted(_DTYPES)}")
        arrays.append(np.ascontiguousarray(value))
        return {"$": len(arrays) - 1}

    try:
        body = msgspec.to_builtins(message, builtin_types=(bytes,), enc_hook=place)
        table = [[_CODES[array.dtype], len(array)] for array in arrays]
        header = MAGIC + msgpack.packb({"body": body, "arrays": table})
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CodecError(f"{type(message).__name__} does not travel: {error}") from error
    frames: list[Frame] = [header, *(array.data.cast("B") if len(array) else b"" for array in arrays)]
    _check_limits(frames)
    return frames


def decode(frames: Sequence[Frame]) -> AnyMessage:
    """The message in these frames. Its arrays are read-only views of the frames.

    Raises:
        CodecError: the frames are not a message of this protocol.
    """
    _check_limits(frames)
    if not frames or bytes(frames[0][: len(MAGIC)]) != MAGIC:
        raise CodecError(f"not a message of Rapid: it does not begin with {MAGIC!r}")
    header = _unpack(frames[0][len(MAGIC) :])
    arrays = _read_arrays(header["arrays"], frames[1:])

    def fetch(kind: type, value: Any) -> Any:
        if kind is np.ndarray and isinstance(value, dict) and set(value) == {"$"}:
            position = value["$"]
            if type(position) is int and 0 <= position < len(arrays):
                return arrays[position]
        raise CodecError(f"expected a reference to one of {len(arrays)} arrays, got {value!r:.80}")

    try:
        message: AnyMessage = msgspec.convert(header["body"], AnyMessage, dec_hook=fetch)
        return message
    except (msgspec.ValidationError, RecursionError, OverflowError, ValueError, TypeError) as error:
        raise CodecError(f"not a valid message: {error}") from error


def _check_limits(frames: Sequence[Frame]) -> None:
    if len(frames) > MAX_FRAMES:
        raise CodecError(f"{len(frames)} frames, at most {MAX_FRAMES} are allowed")
    for position, frame in enumerate(frames):
        limit = MAX_ARRAY_BYTES if position else MAX_HEADER_BYTES
        if len(frame) > limit:
            raise CodecError(f"frame {position} has {len(frame)} bytes, at most {limit} are allowed")


def _unpack(packed: Frame) -> dict[str, Any]:
    try:
        # unpackb bounds every length by the size of its input, which _check_limits has bounded.
        header = msgpack.unpackb(packed, raw=False, strict_map_key=True, timestamp=1, ext_hook=_refuse_extension)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise CodecError(f"the header is not msgpack: {error}") from error
    if not isinstance(header, dict) or set(header) != {"body", "arrays"} or not isinstance(header["arrays"], list):
        raise CodecError("the header is not a map of 'body' and 'arrays'")
    return header


def _refuse_extension(code: int, _: bytes) -> None:
    raise ValueError(f"extension type {code}")


def _read_arrays(table: list[Any], frames: Sequence[Frame]) -> list[np.ndarray]:
    if len(table) != len(frames):
        raise CodecError(f"the header announces {len(table)} arrays, {len(frames)} frames came")
    arrays = []
    for entry, frame in zip(table, frames, strict=True):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str) or type(entry[1]) is not int:
            raise CodecError(f"array description {entry!r:.80}: expected [dtype, length]")
        dtype = _DTYPES.get(entry[0])
        if dtype is None or entry[1] * np.dtype(dtype).itemsize != len(frame):
            raise CodecError(f"array description {entry!r:.80} does not fit a frame of {len(frame)} bytes")
        array = np.frombuffer(frame, dtype=dtype)
        array.flags.writeable = False
        arrays.append(array)
    return arrays
