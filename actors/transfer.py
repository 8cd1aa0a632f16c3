"""Rapid's weight transfer for vLLM: weights come out of a mapped snapshot file. Runs in the engine's process.

    start_weight_update     parameters go back to the layout of a checkpoint, without memory
    update_weights          the file is mapped and loaded; each layer is packed as soon as it is complete
    finish_weight_update    what is left over is put in place, and a tied output head is packed anew

Once imported, the engine is registered with vLLM under the name "rapid".
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

BACKEND = "rapid"


@dataclass
class SnapshotInitInfo(WeightTransferInitInfo):
    """Nothing needs to be agreed beforehand."""


@dataclass
class SnapshotUpdateInfo(WeightTransferUpdateInfo):
    """Where the weights are: tensors end to end in the file, in the order of the three aligned lists."""

    path: str
    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]


def map_tensors(info: SnapshotUpdateInfo) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a snapshot file, as views of its mapping. Nothing is read before it is used."""
    with open(info.path, "rb") as file:
        # A private mapping is writable, which torch asks of a buffer; nobody writes to it.
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    offset = 0
    for name, dtype_name, shape in zip(info.names, info.dtypes, info.shapes, strict=True):
        dtype = getattr(torch, dtype_name)
        count = prod(shape)
        yield name, torch.frombuffer(buffer, dtype=dtype, count=count, offset=offset).view(shape)
        offset += count * dtype.itemsize


class SnapshotTransferEngine(WeightTransferEngine[SnapshotInitInfo, SnapshotUpdateInfo]):
    """Loads snapshot files in the layout of a checkpoint."""

    init_info_cls = SnapshotInitInfo
    update_info_cls = SnapshotUpdateInfo

    def init_transfer_engine(self, init_info: SnapshotInitInfo) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Let every layer take checkpoint tensors again."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load one snapshot; on an accelerator wait until it is there."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: SnapshotUpdateInfo) -> None:
        """Load the tensors of the file into the model. Raises ValueError if they are not all of its weights."""
        expected = {name for name, _ in self.model.named_parameters()}
        if self.model_config.hf_config.get_text_config().tie_word_embeddings:
            expected.discard("lm_head.weight")
        missing = expected - (self.model.load_weights(map_tensors(update_info)) or expected)
        if missing:
            # Those would silently stay as they were: a mixture of two policies, which no version names.
            raise ValueError(f"the snapshot lacks {len(missing)} of the model's weights, such as {min(missing)}")

    def finish_weight_update(self) -> None:
        """Complete the layers that were not loaded as a whole, then the tied output head."""
        finalize_layerwise_reload(self.model, self.model_config)
        _repack_tied_head(self.model)

    def shutdown(self) -> None:
        """Nothing is held between updates."""


def _repack_tied_head(model: torch.nn.Module) -> None:
    # A tied head has no tensor of its own in a checkpoint, so that the reload passes it by, while on the CPU it
    # computes with a packed copy of the embeddings, made when it was first loaded: it would keep the old ones.
    head = getattr(model, "lm_head", None)
    if hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)


def register() -> None:
    """Make the engine known to vLLM in this process. Idempotent, since a fork inherits the registration."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, SnapshotTransferEngine)


register()
