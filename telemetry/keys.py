"""Bytes from a terminal to the names of keys."""

from __future__ import annotations

_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
}
_LONGEST = 32
"""Bytes of an escape sequence after which it is given up as none."""


class KeyReader:
    """Cuts what a terminal sends into keys; a sequence that came in two pieces is put together."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def is_within_key(self) -> bool:
        """Whether the last bytes may be the beginning of a key."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are whole now: a name, or the character itself; "" for one without a name."""
        data, keys = self._rest + data, []
        while data:
            size = _size_of_first(data)
            if size is None:
                break
            keys.append(_name(data[:size]))
            data = data[size:]
        self._rest = data if len(data) <= _LONGEST else b""
        return keys

    def flush(self) -> list[str]:
        """Nothing came for a moment: what looked like the beginning of a sequence was the key Escape."""
        rest, self._rest = self._rest, b""
        return ["escape"] if rest else []


def _size_of_first(data: bytes) -> int | None:
    """Bytes of the first key; None while it is not whole. A sequence ends with a byte from @ to ~."""
    if data[:1] != b"\x1b":
        return 1
    if len(data) < 2:
        return None
    if data[1:2] == b"O":
        return 3 if len(data) >= 3 else None
    if data[1:2] != b"[":
        return 1
    for position in range(2, len(data)):
        if 0x40 <= data[position] <= 0x7E:
            return position + 1
    return None


def _name(key: bytes) -> str:
    if key in _SEQUENCES:
        return _SEQUENCES[key]
    if key == b"\x1b":
        return "escape"
    if key == b" ":
        return "space"
    return key.decode("ascii") if len(key) == 1 and 0x20 < key[0] < 0x7F else ""
