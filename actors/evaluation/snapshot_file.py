"""Weights out of a snapshot's safetensors file, in the form in which engines load them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

from actors.engine import WeightSnapshot
from actors.snapshots import SnapshotStore
from protocol.messages import WeightManifest
from protocol.version import PolicyVersion

_LENGTH = struct.Struct("<Q")
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


class SnapshotFileError(Exception):
    """A file of weights that cannot be used."""


def read_snapshot(path: Path, version: PolicyVersion, store: SnapshotStore) -> WeightSnapshot:
    """The weights of one safetensors file, copied into a file of `store`, to which it is to be given back.

    In a safetensors file (8 bytes length, a JSON header, then the data) tensors lie end to end, as engines want them.

    Raises:
        SnapshotFileError: the file is damaged, or holds a type that no model has.
        OSError: it cannot be read, or there is no room for a copy.
    """
    with path.open("rb") as file:
        header, begin = _read_header(file.read(_LENGTH.size), file, path)
        tensors = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        manifest = _manifest(tensors, version, path)
        if path.stat().st_size != begin + manifest.num_bytes:
            raise SnapshotFileError(f"{path} has {path.stat().st_size} bytes, expected {begin + manifest.num_bytes}")
        copy = store.take(manifest.num_bytes)
        with copy.open("r+b") as target:
            shutil.copyfileobj(file, target, 2**24)
    return WeightSnapshot(version, manifest, copy)


def _read_header(length: bytes, file: Any, path: Path) -> tuple[dict[str, Any], int]:
    """What each tensor is, and where the data begin."""
    try:
        size = _LENGTH.unpack(length)[0]
        header = json.loads(file.read(min(size, path.stat().st_size)))
        header.pop("__metadata__", None)
    except (struct.error, ValueError, AttributeError) as error:
        raise SnapshotFileError(f"{path} is no safetensors file: {error}") from None
    return header, _LENGTH.size + size


def _manifest(tensors: list[tuple[str, Any]], version: PolicyVersion, path: Path) -> WeightManifest:
    unknown = {entry["dtype"] for _, entry in tensors} - set(_DTYPES)
    if unknown:
        raise SnapshotFileError(f"{path} holds {sorted(unknown)}, expected {sorted(_DTYPES)}")
    return WeightManifest(
        version=version,
        transport="zmq",
        address="",
        names=[name for name, _ in tensors],
        dtypes=[_DTYPES[entry["dtype"]] for _, entry in tensors],
        shapes=[entry["shape"] for _, entry in tensors],
        sizes=[entry["data_offsets"][1] - entry["data_offsets"][0] for _, entry in tensors],
        # Nothing has travelled, so that there is nothing to verify.
        checksums=[""] * len(tensors),
    )
