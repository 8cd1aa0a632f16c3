"""Any valid message, for hypothesis: built from what its type declares."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import numpy as np
from hypothesis import strategies as st

from protocol.group import STOP_REASONS, Group
from protocol.messages import AnyMessage, Batch, Chunk, WeightManifest
from protocol.version import Lineage, PolicyVersion

TEXT = st.text(max_size=12)


FINITE = st.floats(allow_nan=False, width=64)


COUNTS = st.integers(0, 2**63 - 1)


VERSIONS = st.builds(PolicyVersion, st.integers(1, 2**31), st.integers(0, 2**62))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FINITE | TEXT | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def f4(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """Any valid group: ragged completions, each with one or more version spans."""
    spans = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4))
    lengths = [sum(parts) for parts in spans]
    span_lengths = [length for parts in spans for length in parts]

    def draw_list(values: st.SearchStrategy[Any], size: int) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    num, tokens, pieces = len(spans), sum(lengths), len(span_lengths)
    floats = st.floats(-100, 100, width=32)
    return Group(
        entry_id=draw(TEXT),
        prompt_token_ids=np.array(draw_list(st.integers(0, 2**31 - 1), draw(st.integers(1, 4))), np.int32),
        token_ids=np.array(draw_list(st.integers(0, 2**31 - 1), tokens), np.int32),
        generator_logprobs=f4(draw_list(floats, tokens)),
        lengths=np.array(lengths, np.int32),
        span_counts=np.array([len(parts) for parts in spans], np.int32),
        span_lengths=np.array(span_lengths, np.int32),
        span_incarnations=np.array(draw_list(st.integers(1, 2**31 - 1), pieces), np.int32),
        span_steps=np.array(draw_list(st.integers(0, 2**31 - 1), pieces), np.int32),
        rewards=f4(draw_list(floats, num)),
        stop_reasons=draw_list(st.sampled_from(STOP_REASONS), num),
        reward_parts={name: f4(draw_list(floats, num)) for name in draw(st.sets(TEXT, max_size=2))},
        actor=draw(TEXT),
        started_s=draw(FINITE),
        generation_s=draw(FINITE),
    )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    members = draw(st.lists(groups(), min_size=1, max_size=3))
    return Batch(
        batch_id=draw(TEXT.filter(bool)),
        version=draw(VERSIONS),
        groups=members,
        lags=draw(st.lists(COUNTS, min_size=len(members), max_size=len(members))),
        groups_filtered=draw(COUNTS),
        generated_tokens=draw(COUNTS),
        reward_mean=draw(FINITE),
    )


@st.composite
def manifests(draw: st.DrawFn) -> WeightManifest:
    size = draw(st.integers(0, 3))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    return WeightManifest(
        version=draw(VERSIONS),
        transport=draw(st.sampled_from(["zmq", "nccl", "ipc"])),
        address=draw(TEXT),
        names=column(TEXT),
        dtypes=column(TEXT),
        shapes=column(st.lists(COUNTS, max_size=3)),
        sizes=column(COUNTS),
        checksums=column(TEXT),
    )


SPECIAL: dict[type, st.SearchStrategy[Any]] = {
    Group: groups(),
    Batch: batches(),
    WeightManifest: manifests(),
    Chunk: st.builds(
        Chunk, version=VERSIONS, offset=COUNTS, data=st.binary(max_size=40).map(lambda x: np.frombuffer(x, np.uint8))
    ),
    Lineage: st.builds(Lineage, st.lists(COUNTS, max_size=3).map(tuple)),
    PolicyVersion: VERSIONS,
}


def values_of(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    """Values that a field of this declared type may hold."""
    match kind:
        case msgspec.inspect.StructType(cls=cls) | msgspec.inspect.DataclassType(cls=cls):
            return messages_of(cls)
        case msgspec.inspect.IntType():
            return st.integers(kind.ge or 0, 2**63 - 1)
        case msgspec.inspect.FloatType():
            return st.floats(0 if kind.ge == 0 else None, allow_nan=False)
        case msgspec.inspect.StrType():
            return st.text(min_size=kind.min_length or 0, max_size=20)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.AnyType():
            return PLAIN
        case msgspec.inspect.LiteralType():
            return st.sampled_from(kind.values)
        case msgspec.inspect.ListType():
            return st.lists(values_of(kind.item_type), max_size=3)
        case msgspec.inspect.DictType():
            return st.dictionaries(values_of(kind.key_type), values_of(kind.value_type), max_size=3)
        case msgspec.inspect.UnionType():
            return st.one_of([values_of(part) for part in kind.types])
    raise TypeError(f"a message has a field of {kind}: expected one of the types above; add its values")


def structs_of(cls: type) -> st.SearchStrategy[Any]:
    kind = msgspec.inspect.type_info(cls)
    assert isinstance(kind, msgspec.inspect.StructType)
    return st.builds(cls, **{field.name: values_of(field.type) for field in kind.fields})


def messages_of(cls: type) -> st.SearchStrategy[Any]:
    return SPECIAL[cls] if cls in SPECIAL else structs_of(cls)


KINDS: tuple[type, ...] = get_args(AnyMessage)


MESSAGES: st.SearchStrategy[AnyMessage] = st.sampled_from(KINDS).flatmap(messages_of)
