"""A hub and a weight publisher in one, for benchmarks of an actor alone: grants prompts, serves a model's weights."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import torch
import xxhash

from protocol.endpoint import Server
from protocol.messages import (
    Acknowledge,
    AnyMessage,
    Chunk,
    Fetch,
    Hello,
    Lease,
    Submit,
    WeightManifest,
    Work,
    WorkItem,
)
from protocol.version import PolicyVersion


class ServedWeights:
    """The weights of a model, end to end, as a learner would publish them."""

    def __init__(self, model_path: Path) -> None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16)
        weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
        pieces = [weight.flatten().view(torch.uint8).numpy() for weight in weights.values()]
        self.data = np.concatenate(pieces)
        self._names = list(weights)
        self._shapes = [list(weight.shape) for weight in weights.values()]
        self._sizes = [len(piece) for piece in pieces]
        self._checksums = [xxhash.xxh3_64_hexdigest(piece) for piece in pieces]

    def manifest(self, version: PolicyVersion, address: str) -> WeightManifest:
        """These weights under any version."""
        return WeightManifest(
            version=version,
            transport="zmq",
            address=address,
            names=self._names,
            dtypes=["bfloat16"] * len(self._names),
            shapes=self._shapes,
            sizes=self._sizes,
            checksums=self._checksums,
        )


class GrantingHub:
    """Grants prompts 0, 1, ... below `limit`, and counts what is submitted."""

    def __init__(self, weights: ServedWeights) -> None:
        self._weights = weights
        self._next_index = self.limit = 0
        self.num_groups = self.num_tokens = 0
        self._changed = asyncio.Condition()
        self._server = Server("tcp://127.0.0.1:*", self._answer)
        self._serving = asyncio.create_task(self._server.serve())

    @property
    def address(self) -> str:
        """Of hub and publisher."""
        return self._server.address

    async def grant_until(self, limit: int) -> None:
        """Let prompts be leased below this index, and wait until their groups are all there."""
        async with self._changed:
            self.limit = limit
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.num_groups == limit)

    async def _answer(self, peer: bytes, message: AnyMessage) -> AnyMessage:
        if isinstance(message, Fetch):
            end = message.offset + message.size
            return Chunk(version=message.version, offset=message.offset, data=self._weights.data[message.offset : end])
        if isinstance(message, Lease):
            return await self._grant(message)
        if isinstance(message, Hello):
            await self._server.push(peer, self._weights.manifest(PolicyVersion(1, 0), self.address))
        if isinstance(message, Submit):
            await self._count(message)
        return Acknowledge()

    async def _grant(self, message: Lease) -> Work:
        async with self._changed:
            await self._changed.wait_for(lambda: self._next_index < self.limit)
            first, self._next_index = self._next_index, min(self._next_index + message.max_groups, self.limit)
        indices = range(first, self._next_index)
        return Work(items=[WorkItem(lease_id=f"{i}", entry_id=f"0:{i}", epoch=0, index=i) for i in indices])

    async def _count(self, message: Submit) -> None:
        async with self._changed:
            self.num_groups += 1
            self.num_tokens += message.group.num_tokens
            self._changed.notify_all()

    async def close(self) -> None:
        """Stop serving."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self._server.close()
