"""The states of all entries as one short text, runs of equal states: "s120f2s31r4".

A text because it travels as msgpack, is kept as JSON, and can be read by people.
"""

from __future__ import annotations

import re

import numpy as np

from buffer.errors import LedgerError
from buffer.states import State

STATES = tuple(State)
"""The code of a state is its place here."""
_LETTERS = {
    State.READY: "r",
    State.LEASED: "l",
    State.BUFFERED: "b",
    State.PULLED: "p",
    State.TRAINED: "t",
    State.SETTLED: "s",
    State.FILTERED: "f",
    State.DROPPED: "x",
    State.DEAD_LETTER: "d",
}
_CODE_OF_LETTER = {letter: STATES.index(state) for state, letter in _LETTERS.items()}
_RUN = re.compile(r"([a-z])(\d{1,12})")
_MAX_ENTRIES = 2**30


def encode_states(codes: bytes | bytearray) -> str:
    """Text of uint8 codes."""
    if not codes:
        return ""
    array = np.frombuffer(bytes(codes), dtype=np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(array)) + 1))
    lengths = np.diff(np.append(starts, len(array)))
    pairs = zip(array[starts].tolist(), lengths.tolist(), strict=True)
    return "".join(f"{_LETTERS[STATES[code]]}{length}" for code, length in pairs)


def decode_states(text: str) -> bytearray:
    """uint8 codes of a text. Raises LedgerError for what `encode_states` does not write."""
    runs = _RUN.findall(text)
    if sum(len(letter) + len(length) for letter, length in runs) != len(text):
        raise LedgerError(f"states {text[:40]!r}: expected runs such as 's120f2'; the file is damaged")
    if unknown := {letter for letter, _ in runs} - set(_CODE_OF_LETTER):
        raise LedgerError(f"states hold {sorted(unknown)}, expected letters of {sorted(_CODE_OF_LETTER)}")
    if sum(int(length) for _, length in runs) > _MAX_ENTRIES:
        raise LedgerError(f"states of more than {_MAX_ENTRIES} entries; the file is damaged")
    codes = bytearray()
    for letter, length in runs:
        codes += bytes([_CODE_OF_LETTER[letter]]) * int(length)
    return codes
