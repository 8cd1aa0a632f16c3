"""Weights that come from GPU to GPU by vLLM's own engines. Written against vLLM 0.32; NOT RUN: no GPU was there.

The manifest of such weights carries no bytes. Its `address` is JSON, written by the learner's GPU publisher:

    {"init": {...}, "update": {...}}

of which `init` is the handshake, made once, and `update` the argument of `update_weights`. In it bytes stand as
{"bytes": base64}, and types and dtypes as {"type": name}.
"""

from __future__ import annotations

import base64
import importlib
import json
import pickle
from typing import TYPE_CHECKING, Any

from protocol.errors import WeightsError
from protocol.messages import WeightManifest

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

# What a handle of CUDA memory is made of. Names of other types are refused: they come over the wire.
_TYPES = {
    "torch.Tensor": ("torch", "Tensor"),
    "torch.nn.parameter.Parameter": ("torch.nn.parameter", "Parameter"),
    "torch.storage.UntypedStorage": ("torch.storage", "UntypedStorage"),
    "torch.storage.TypedStorage": ("torch.storage", "TypedStorage"),
}
_DTYPES = {"bfloat16", "float16", "float32", "float64", "int64", "int32", "int8", "uint8", "bool"}


class GpuTransfer:
    """The actor's side of a transfer between GPUs.

    Args:
        index: of this actor, from 0; with nccl its rank among the receivers.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._is_open = False

    async def receive(self, engine: AsyncLLM, manifest: WeightManifest) -> None:
        """Load the weights of a manifest into a paused engine. Raises WeightsError for a manifest of another kind."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest

        init, update = read_calls(manifest)
        if not self._is_open:
            if "rank_offset" in init:
                init["rank_offset"] += self._index
            await engine.init_weight_transfer_engine(WeightTransferInitRequest(init))
            self._is_open = True
        await engine.start_weight_update()
        await engine.update_weights(WeightTransferUpdateRequest(update))
        await engine.finish_weight_update(weight_version=str(manifest.version))


def read_calls(manifest: WeightManifest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the handshake and of the update. Raises WeightsError when the address does not hold them."""
    try:
        calls = json.loads(manifest.address)
        init, update = restore(calls["init"]), restore(calls["update"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"the manifest of {manifest.version} does not say how to receive by {manifest.transport}: {error}. "
            "Expected a learner with the same weights.transport"
        ) from error
    handles = update.pop("ipc_handles", None)
    if handles is not None:
        # torch wants the parts of a handle as a tuple. vLLM takes handles between its own processes as a pickle; this
        # one is made here and goes to the engine's process alone.
        tuples = [{card: tuple(parts) for card, parts in handle.items()} for handle in handles]
        update["ipc_handles_pickled"] = base64.b64encode(pickle.dumps(tuples)).decode()
    return init, update


def restore(value: Any) -> Any:
    """The value that stands in JSON's terms. Raises ValueError for a type that no handle is made of."""
    if isinstance(value, dict):
        if set(value) == {"bytes"}:
            return base64.b64decode(value["bytes"], validate=True)
        if set(value) == {"type"}:
            return _find_type(value["type"])
        return {key: restore(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [restore(inner) for inner in value]
    return value


def _find_type(name: str) -> Any:
    if name in _DTYPES:
        return getattr(importlib.import_module("torch"), name)
    if name not in _TYPES:
        raise ValueError(f"type {name!r}, expected one of {sorted({*_TYPES, *_DTYPES})}")
    module, attribute = _TYPES[name]
    return getattr(importlib.import_module(module), attribute)
