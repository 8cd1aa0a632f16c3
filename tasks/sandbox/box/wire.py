"""Messages between processes: a length of four bytes, then JSON or plain bytes."""

from __future__ import annotations

import json
import os
from typing import Any

# A candidate that sends more has sent a giant output, and fails.
MESSAGE_BYTES = 16 * 2**20
HEADER_BYTES = 4


class ClosedError(Exception):
    """The other end has gone, or sent what is no message."""


def send_bytes(fd: int, data: bytes) -> None:
    """Raises ClosedError when the other end has gone."""
    rest = memoryview(len(data).to_bytes(HEADER_BYTES, "big") + data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError as error:
        raise ClosedError(str(error)) from None


def receive_bytes(fd: int, limit: int = MESSAGE_BYTES) -> bytes:
    """The next message. Raises ClosedError when none comes any more, or when it is longer than `limit`."""
    length = int.from_bytes(receive_exactly(fd, HEADER_BYTES), "big")
    if length > limit:
        raise ClosedError(f"a message of {length} bytes; at most {limit} are taken")
    return receive_exactly(fd, length)


def receive_exactly(fd: int, length: int) -> bytes:
    parts = []
    while length > 0:
        try:
            part = os.read(fd, min(length, 2**20))
        except OSError as error:
            raise ClosedError(str(error)) from None
        if not part:
            raise ClosedError("the other end has gone")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def send(fd: int, message: Any) -> None:
    """Raises ClosedError when the other end has gone."""
    send_bytes(fd, json.dumps(message).encode())


def receive(fd: int) -> Any:
    """The next message as JSON. Raises ClosedError."""
    try:
        return json.loads(receive_bytes(fd))
    except (ValueError, RecursionError) as error:
        raise ClosedError(f"a message that is no JSON: {error}") from None
