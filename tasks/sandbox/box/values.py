"""Values as JSON and back, of plain types only.

What a candidate returns is rebuilt by the judge from this description, so that nothing of the candidate's own (an
`__eq__` that is always true, a subclass, a pickle) reaches the process that compares. What has no plain form stays
where it is, and a handle stands for it.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import sys
from collections.abc import Callable
from typing import Any

numpy: Any = None

Keep = Callable[[Any], Any]
"""Makes the description of a value that is not plain; raises TypeError where there are no such values."""

PLAIN = {bool, int, float, str, type(None)}
LARGE = 2**256
# Booleans, numbers, bytes and text.
ARRAY_KINDS = "biufcSU"
# numpy casts the number that an array is compared with to the array's type: among 16-bit floats an infinity equals
# every number above 65504, and 3.14 equals pi. The candidate chooses the values, not how closely they are looked at.
WIDEST = {"f": "f8", "i": "i8", "u": "u8", "c": "c16"}
SEQUENCES: dict[type, str] = {
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    collections.deque: "deque",
}
MAPPINGS: dict[type, str] = {
    dict: "dict",
    collections.Counter: "Counter",
    collections.OrderedDict: "OrderedDict",
    collections.defaultdict: "dict",
}
WITH_ARGUMENTS: dict[type, Callable[[Any], list[Any]]] = {
    complex: lambda v: [v.real, v.imag],
    range: lambda v: [v.start, v.stop, v.step],
    fractions.Fraction: lambda v: [v.numerator, v.denominator],
    decimal.Decimal: lambda v: [str(v)],
    datetime.date: lambda v: [v.year, v.month, v.day],
    datetime.time: lambda v: [v.hour, v.minute, v.second, v.microsecond],
    datetime.datetime: lambda v: [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond],
    datetime.timedelta: lambda v: [v.days, v.seconds, v.microseconds],
}
BUILDERS: dict[str, Callable[..., Any]] = {
    **{name: kind for kind, name in SEQUENCES.items()},
    "dict": dict,
    "Counter": collections.Counter,
    "OrderedDict": collections.OrderedDict,
    **{kind.__name__: kind for kind in WITH_ARGUMENTS},
}
TYPES = {
    kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, object)
}
# Subclasses (a namedtuple, an IntEnum) travel as what they are underneath.
BASES = (bool, int, float, str, bytes, list, tuple, set, frozenset, dict, collections.deque)


def use_numpy(module: Any) -> None:
    """From now on numpy's arrays and numbers are values too."""
    global numpy
    numpy = module


def encode(value: Any, keep: Keep) -> Any:
    """The description of `value` for JSON. `keep` describes what is not plain."""
    kind = type(value)
    if kind is int and not -LARGE < value < LARGE:
        # Decimal digits would take time that grows with the square of their number.
        return {"t": "int", "v": hex(value)}
    if kind in PLAIN:
        return value
    if kind is list and is_flat(value):
        return value
    if kind is list and set(map(type, value)) == {tuple} and all(map(is_flat, value)):
        # JSON writes these as arrays by itself, which spares a million small objects.
        return {"t": "tuples", "v": value}
    if kind is list:
        return [encode(item, keep) for item in value]
    if kind in SEQUENCES:
        return {"t": SEQUENCES[kind], "v": [encode(item, keep) for item in value]}
    if kind in MAPPINGS:
        return {"t": MAPPINGS[kind], "v": [[encode(key, keep), encode(item, keep)] for key, item in value.items()]}
    if kind in (bytes, bytearray):
        return {"t": "bytes", "v": value.decode("latin-1")}
    if kind is type and any(value is each for each in TYPES.values()):
        return {"t": "type", "v": value.__name__}
    if kind in WITH_ARGUMENTS:
        return {"t": kind.__name__, "a": WITH_ARGUMENTS[kind](value)}
    if numpy is not None and isinstance(value, numpy.generic):
        item = value.item()
        return keep(value) if isinstance(item, numpy.generic) else encode(item, keep)
    if numpy is not None and kind is numpy.ndarray and value.dtype.kind in ARRAY_KINDS:
        return {"t": "ndarray", "v": encode(value.tolist(), keep), "d": value.dtype.str}
    for base in BASES:
        if isinstance(value, base):
            return encode(to_base(value, base), keep)
    return keep(value)


def is_flat(items: list[Any] | tuple[Any, ...]) -> bool:
    """Whether JSON holds the items as they are. A million numbers are soon looked through in this way."""
    kinds = set(map(type, items))
    if int not in kinds:
        return kinds <= PLAIN
    return kinds <= {int, float, bool} and bool(min(items) > -LARGE and max(items) < LARGE)


def to_base(value: Any, base: type) -> Any:
    """A subclass's value as the base itself, without asking the subclass."""
    if base in (bool, int):
        return int.__int__(value)
    if base is float:
        return float.__float__(value)
    if base is str:
        return str.__str__(value)
    if base is dict:
        return dict(dict.items(value))
    return base(base.__iter__(value))  # type: ignore[attr-defined]


def decode(message: Any, find: Callable[[Any], Any]) -> Any:
    """The value that `message` describes. `find` gives the value behind a handle.

    Raises ValueError, TypeError or another Exception when it describes none, as a hostile sender's may.
    """
    if isinstance(message, list):
        return message if {list, dict}.isdisjoint(map(type, message)) else [decode(item, find) for item in message]
    if not isinstance(message, dict):
        return message
    name = message.get("t")
    if name == "handle":
        return find(message["v"])
    if name == "tuples":
        return [tuple(items) for items in message["v"]]
    if name == "int":
        return int(message["v"], 16)
    if name == "type":
        return TYPES[message["v"]]
    if name == "bytes":
        return message["v"].encode("latin-1")
    if name == "ndarray" and numpy.dtype(message["d"]).kind in ARRAY_KINDS:
        return decode_array(decode(message["v"], find), numpy.dtype(message["d"]))
    if name not in BUILDERS:
        raise ValueError(f"an unknown type {name!r:.40}")
    if "a" in message:
        return BUILDERS[name](*message["a"])
    if name in ("dict", "Counter", "OrderedDict"):
        return BUILDERS[name]({decode(key, find): decode(item, find) for key, item in message["v"]})
    return BUILDERS[name](decode(item, find) for item in message["v"])


def decode_array(items: Any, dtype: Any) -> Any:
    """An array of the widest type of its kind; of no dimensions, the number itself."""
    array = numpy.array(items, dtype=WIDEST.get(dtype.kind, dtype))
    return array if array.ndim else array.item()


# Integers of more than 4300 digits are answers too; what they cost in time counts against the limit.
sys.set_int_max_str_digits(0)
