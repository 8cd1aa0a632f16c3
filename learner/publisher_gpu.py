"""Weight publishers for GPUs, on vLLM's own trainer-side engines. Written against vLLM 0.32; NOT RUN: no GPU was there.

vLLM's trainer drives each inference engine by remote calls. Here nobody calls an actor, so those calls become one
WeightManifest, which the hub pushes as it does for `zmq`. Its `address` is JSON, of which an actor makes the calls:

    {"init": {...}, "update": {...}}

    nccl    on the first manifest `init_weight_transfer_engine(init)`; on every one start_weight_update,
            update_weights(update), finish_weight_update(version). The broadcast begins when all receivers are there, so
            that the number of actors is fixed, and training waits for the slowest of them.
    ipc     the same calls. `update["ipc_handles"]` holds one map of GPU to handle a weight; in a handle bytes stand as
            {"bytes": base64}, types and dtypes as {"type": name}, and nothing in it is pickled. Learner and actors
            share one card. The two newest versions stay in its memory until the next publication.
"""

from __future__ import annotations

import base64
import json
import socket
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import ParamMeta
from vllm.distributed.weight_transfer.base import WeightSource as VllmWeightSource
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo, IPCTrainerWeightTransferEngine
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

from learner.publisher import KEPT_VERSIONS, WeightSource
from protocol.messages import WeightManifest
from protocol.version import PolicyVersion


class StagedSource(VllmWeightSource):
    """Copies of the weights on the GPU, taken between two optimizer steps, in vLLM's interface."""

    def __init__(self) -> None:
        self._staged: deque[dict[str, torch.Tensor]] = deque(maxlen=KEPT_VERSIONS)

    def stage(self, source: WeightSource) -> None:
        """Copy the weights as they are now."""
        self._staged.append({name: weight.clone() for name, weight in source.iter_weights()})

    def metadata(self) -> list[ParamMeta]:
        """Name, dtype and shape of each weight staged."""
        return [ParamMeta(name, weight.dtype, tuple(weight.shape)) for name, weight in self._staged[-1].items()]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self._staged[-1].items())


class ManifestClient:
    """vLLM's `VLLMWeightSyncClient`, for which a manifest takes the place of remote calls."""

    def __init__(self, transport: str, source: StagedSource, announce: Callable[[WeightManifest], None]) -> None:
        self._transport = transport
        self._source = source
        self._announce = announce
        self._init_info: dict[str, Any] = {}
        self._announced: PolicyVersion | None = None
        self.version: PolicyVersion | None = None
        """The version about to be sent."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Part of every manifest from now on. With nccl the receivers must come before anything is sent."""
        self._init_info = init_info
        if self._transport == "nccl":
            metadata = self._source.metadata()
            self._tell(
                {
                    "names": [meta.name for meta in metadata],
                    "dtype_names": [_type_name(meta.dtype) for meta in metadata],
                    "shapes": [list(meta.shape) for meta in metadata],
                }
            )

    def start_weight_update(self) -> None:
        """The actor does that when the manifest reaches it."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Announce the version, unless the handshake has done so."""
        if self._announced != self.version:
            self._tell(update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """The actor does that when it has received everything."""

    def shutdown_weight_transfer_engine(self) -> None:
        """The actor does that when it ends."""

    def _tell(self, update_info: dict[str, Any]) -> None:
        assert self.version is not None
        names, shapes = update_info["names"], update_info["shapes"]
        dtypes = update_info["dtype_names"]
        sizes = [
            torch.Size(shape).numel() * getattr(torch, dtype).itemsize
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]
        self._announce(
            WeightManifest(
                version=self.version,
                transport=self._transport,
                address=json.dumps({"init": self._init_info, "update": plain(update_info)}),
                names=names,
                dtypes=dtypes,
                shapes=shapes,
                sizes=sizes,
                # Nothing leaves the GPU, where a checksum would cost more than the transfer.
                checksums=[""] * len(names),
            )
        )
        self._announced = self.version


class GpuWeightPublisher:
    """Sends weights from GPU to GPU.

    Args:
        transport: "nccl" or "ipc".
        host: where nccl's ranks meet.
        receivers: GPU processes of all actors together, for nccl.
        announce: tells the hub of a manifest.
    """

    def __init__(self, transport: str, host: str, receivers: int, announce: Callable[[WeightManifest], None]) -> None:
        self._transport, self._host, self._receivers = transport, host, receivers
        self._source = StagedSource()
        self._client = ManifestClient(transport, self._source, announce)
        self._engine: NCCLTrainerWeightTransferEngine | IPCTrainerWeightTransferEngine | None = None

    def publish(self, version: PolicyVersion, source: WeightSource) -> Future[float]:
        """Send the weights. Returns when they are on their way (ipc) or have arrived everywhere (nccl)."""
        self._source.stage(source)
        self._client.version = version
        if self._engine is None:
            self._engine = self._open()
        self._engine.send_weights()
        done: Future[float] = Future()
        done.set_result(0.0)
        return done

    def _open(self) -> NCCLTrainerWeightTransferEngine | IPCTrainerWeightTransferEngine:
        # Rank 0 of the learner alone holds whole weights and sends, whatever the number of its ranks.
        if self._transport == "ipc":
            return IPCTrainerWeightTransferEngine.trainer_init(
                IPCTrainerInitInfo(rank=0), client=self._client, source=self._source
            )
        with socket.socket() as free:
            free.bind((self._host, 0))
            port = free.getsockname()[1]
        info = NCCLTrainerInitInfo(rank=0, master_address=self._host, master_port=port, world_size=1 + self._receivers)
        return NCCLTrainerWeightTransferEngine.trainer_init(info, client=self._client, source=self._source)

    def wait(self) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        """Leave nccl's group."""
        group = getattr(self._engine, "model_update_group", None)
        if group is not None:
            group.destroy()


def plain(value: Any) -> Any:
    """A value of an update in JSON's terms: see the top of this file. Raises TypeError for what has none."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, type | torch.dtype):
        return {"type": _type_name(value)}
    raise TypeError(f"a weight update holds a {type(value).__name__}, expected plain values, bytes, types and dtypes")


def _type_name(value: type | torch.dtype) -> str:
    return (
        str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else f"{value.__module__}.{value.__name__}"
    )
