"""Values through JSON: what is plain comes back equal and of the same type, and nothing else comes back at all."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import json
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.sandbox.box import values


@pytest.fixture(autouse=True)
def with_numpy() -> None:
    values.use_numpy(numpy)


def refuse(value: Any) -> Any:
    raise TypeError(f"not plain: {value!r}")


def through(value: Any) -> Any:
    return values.decode(json.loads(json.dumps(values.encode(value, refuse))), refuse)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.complex_numbers(allow_nan=False)
)
hashable = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
plain = st.recursive(
    scalars | st.binary(),
    lambda inner: (
        (st.lists(inner) | st.tuples(inner) | st.lists(st.tuples(inner, inner)) | st.dictionaries(hashable, inner))
        | st.sets(hashable)
    ),
    max_leaves=10,
)


@given(plain)
def test_plain_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    back = through(value)
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, set | dict | list | tuple)
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        10**5000,
        [1, -(10**400), 2.5],
        [(1, 2), (3, 10**300)],
        [(1, [2]), (3, 4)],
        "\ud800",
        range(3, 10, 2),
        fractions.Fraction(1, 3),
        decimal.Decimal("1.10"),
        datetime.date(2026, 11, 21),
        datetime.datetime(2026, 11, 21, 12, 30),
        datetime.timedelta(days=1, seconds=2),
        collections.Counter("abca"),
        collections.OrderedDict(a=1),
        collections.deque([1, 2]),
        {1: "a", (1, 2): {3}},
        {"t": "handle", "v": 0},
        float("inf"),
        int,
        [str, None],
    ],
)
def test_other_values_come_back_too(value: Any) -> None:
    assert through(value) == value
    assert type(through(value)) is type(value)


def test_a_subclass_comes_back_as_what_it_is_underneath() -> None:
    class Anything(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

        def __int__(self) -> int:
            return 99

    class Colour(enum.IntEnum):
        RED = 3

    assert type(through(Anything(7))) is int
    assert through(Anything(7)) == 7
    assert through(Colour.RED) == 3
    assert through(collections.namedtuple("Point", "x y")(1, 2)) == (1, 2)


def test_numbers_and_arrays_of_numpy_are_values() -> None:
    assert through(numpy.int64(3)) == 3
    assert through([numpy.float64(0.5), numpy.bool_(True)]) == [0.5, True]
    back = through(numpy.array([[1, 2], [3, 4]]))
    assert isinstance(back, numpy.ndarray)
    assert back.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(("narrow", "wide"), [("f2", "f8"), ("f4", "f8"), ("i1", "i8"), ("u2", "u8"), ("c8", "c16")])
def test_an_array_comes_back_in_the_widest_type_of_its_kind(narrow: str, wide: str) -> None:
    assert through(numpy.array([1, 2], dtype=narrow)).dtype == numpy.dtype(wide)


def test_an_array_without_dimensions_is_a_number() -> None:
    assert through(numpy.array(3, dtype="i1")) == 3
    assert type(through(numpy.array(numpy.inf, dtype="f2"))) is float
    assert through(numpy.array("ab")) == "ab"


@pytest.mark.parametrize("value", [object(), lambda: 0, iter([1]), re_match := __import__("re").match("a", "a")])
def test_what_is_not_plain_is_kept(value: Any) -> None:
    assert values.encode([value], lambda kept: "kept" if kept is value else "other") == ["kept"]


@pytest.mark.parametrize(
    "message",
    [
        {"t": "module", "v": "os"},
        {"t": "__import__", "a": ["os"]},
        {"t": "type", "v": "property"},
        {},
        {"t": ["list"], "v": 1},
        {"t": "int", "v": "zz"},
        {"t": "Fraction", "a": [1, 0]},
        {"t": "dict", "v": [[[], 1]]},
        {"t": "ndarray", "v": [1], "d": "O,"},
        {"t": "handle", "v": 3},
    ],
)
def test_a_hostile_message_is_an_error(message: Any) -> None:
    with pytest.raises((ValueError, TypeError, ZeroDivisionError, AttributeError, KeyError)):
        values.decode(message, refuse)
