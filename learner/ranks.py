"""The learner's processes as one: joining, sums, and messages that rank 0 shares with all. No pickle."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from protocol.codec import Frame

# Rank 0 speaks at least every few seconds while it waits, so longer silence means that it is gone.
_SILENCE = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """One process of `world_size`, and the device on which it trains."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which talks to the hub."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum(torch.zeros(1, device=self.device))

    def share(self, kind: int, frames: Sequence[Frame] = ()) -> tuple[int, list[Frame]]:
        """Rank 0's kind and frames, on every rank; what the other ranks pass is ignored."""
        if self.world_size == 1:
            return kind, list(frames)
        head = self._broadcast(torch.tensor([kind, len(frames)], dtype=torch.int64))
        kind, count = (int(number) for number in head.tolist())
        if count == 0:
            return kind, []
        own = [len(frame) for frame in frames] if self.is_first else [0] * count
        sizes = self._broadcast(torch.tensor(own, dtype=torch.int64)).tolist()
        return kind, self._share_bytes(sizes, frames)

    def _share_bytes(self, sizes: list[int], frames: Sequence[Frame]) -> list[Frame]:
        ends = np.cumsum(sizes).tolist()
        payload = torch.empty(ends[-1], dtype=torch.uint8)
        if self.is_first:
            payload.numpy()[:] = np.concatenate([np.frombuffer(frame, dtype=np.uint8) for frame in frames])
        view = memoryview(self._broadcast(payload).numpy())
        return [view[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        moved = tensor.to(self.device)
        dist.broadcast(moved, src=0)
        return moved.cpu()


def join_ranks(rank: int, world_size: int, address: str, port: int) -> Ranks:
    """Meet the other ranks, with nccl where there are GPUs and gloo elsewhere. A single rank opens no port."""
    local_rank = rank % torch.cuda.device_count() if torch.cuda.is_available() else 0
    # DeepSpeed reads its place from the environment that its own launcher would have set.
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(local_rank)}
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    # DeepSpeed keeps groups that it made for the life of the process, so a single rank keeps its own, too.
    if not dist.is_initialized():
        if world_size > 1:
            store = dist.TCPStore(address, port, world_size, is_master=rank == 0, timeout=_SILENCE)
        else:
            store = dist.HashStore()
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_SILENCE)
    return Ranks(rank, world_size, device)


def leave_ranks() -> None:
    """Leave the other ranks, if there are any. Idempotent."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.destroy_process_group()
