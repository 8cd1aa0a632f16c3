"""What an actor talks to, without the rest of Rapid: a hub, a weight publisher, a task and a reward runner."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import xxhash

from protocol.endpoint import Server
from protocol.errors import RefusedError
from protocol.group import Group
from protocol.messages import (
    Acknowledge,
    AnyMessage,
    Chunk,
    Evaluated,
    Fetch,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    Return,
    Submit,
    WeightManifest,
    Work,
    WorkItem,
)
from protocol.version import PolicyVersion


def make_llama(folder: Path, tied: bool, seed: int = 0, vocabulary: int = 128) -> torch.nn.Module:
    """A two-layer llama with random weights and a tokenizer of words, saved to `folder` in bfloat16."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    # Threads that spin for each other cost minutes where other processes have the cores.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.1,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    words = {"<s>": 0, "</s>": 1, **{str(number): number + 2 for number in range(vocabulary - 2)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    fast.save_pretrained(folder)
    return model


def perturb(model: torch.nn.Module, seed: int, scale: float = 0.05) -> None:
    """Change every weight, embeddings included, so that the next version is clearly another policy."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.add_(noise.to(parameter.dtype))


def weight_bytes(model: torch.nn.Module) -> np.ndarray:
    """uint8, all weights end to end, a tied one once."""
    weights = [weight.detach().contiguous().flatten().view(torch.uint8) for weight in model.parameters()]
    return torch.cat(weights).numpy()


def manifest_of(version: PolicyVersion, model: torch.nn.Module, address: str) -> WeightManifest:
    """The manifest of `weight_bytes`."""
    weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
    pieces = [weight.flatten().view(torch.uint8).numpy() for weight in weights.values()]
    return WeightManifest(
        version=version,
        transport="zmq",
        address=address,
        names=list(weights),
        dtypes=[str(weight.dtype).removeprefix("torch.") for weight in weights.values()],
        shapes=[list(weight.shape) for weight in weights.values()],
        sizes=[len(piece) for piece in pieces],
        checksums=[xxhash.xxh3_64_hexdigest(piece) for piece in pieces],
    )


class FakePublisher:
    """Serves weights as the learner's publisher does."""

    def __init__(self) -> None:
        self.data: dict[PolicyVersion, np.ndarray] = {}
        self.fetches: list[Fetch] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.server = Server("tcp://127.0.0.1:*", self._answer)
        self._serving = asyncio.create_task(self.server.serve())

    def publish(self, version: PolicyVersion, model: torch.nn.Module) -> WeightManifest:
        """Keep a copy of the weights; returns its manifest."""
        self.data[version] = weight_bytes(model)
        return manifest_of(version, model, self.server.address)

    async def _answer(self, peer: bytes, message: AnyMessage) -> AnyMessage:
        assert isinstance(message, Fetch)
        self.fetches.append(message)
        await self.gate.wait()
        if message.version not in self.data:
            raise RefusedError("version_gone", f"version {message.version} is gone")
        data = self.data[message.version][message.offset : message.offset + message.size]
        return Chunk(version=message.version, offset=message.offset, data=data)

    async def close(self) -> None:
        """Stop serving."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self.server.close()


class FakeHub:
    """Grants leases on prompts 0, 1, 2, ... up to `num_prompts`, and keeps what comes back."""

    def __init__(self, num_prompts: int, address: str = "tcp://127.0.0.1:*") -> None:
        self.waiting = deque(range(num_prompts))
        self.hellos: list[Hello] = []
        self.leases: list[Lease] = []
        self.heartbeats: list[Heartbeat] = []
        self.groups: list[Group] = []
        self.returns: list[Return] = []
        self.goodbyes: list[str] = []
        self.evaluated: list[Evaluated] = []
        self.refused: set[str] = set()
        self.manifest: WeightManifest | None = None
        self.changed = asyncio.Condition()
        self._peers: set[bytes] = set()
        self.server = Server(address, self._answer)
        self._serving = asyncio.create_task(self.server.serve())

    async def _answer(self, peer: bytes, message: AnyMessage) -> AnyMessage:
        answer: AnyMessage = Acknowledge()
        if isinstance(message, Hello):
            self.hellos.append(message)
            self._peers.add(peer)
            if self.manifest is not None:
                await self.server.push(peer, self.manifest)
        elif isinstance(message, Heartbeat):
            self.heartbeats.append(message)
        elif isinstance(message, Lease):
            answer = await self._grant(message)
        elif isinstance(message, Submit):
            if message.lease_id in self.refused:
                raise RefusedError("unknown_lease", message.lease_id)
            self.groups.append(message.group)
        elif isinstance(message, Return):
            self.returns.append(message)
        elif isinstance(message, Goodbye):
            self.goodbyes.append(message.name)
        elif isinstance(message, Evaluated):
            self.evaluated.append(message)
        async with self.changed:
            self.changed.notify_all()
        return answer

    async def _grant(self, message: Lease) -> Work:
        self.leases.append(message)
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: bool(self.waiting)), message.wait_s)
            except TimeoutError:
                return Work(items=[])
        indices = [self.waiting.popleft() for _ in range(min(message.max_groups, len(self.waiting)))]
        return Work(items=[WorkItem(lease_id=f"lease-{i}", entry_id=f"0:{i}", epoch=0, index=i) for i in indices])

    async def push(self, message: AnyMessage) -> None:
        """Push to every actor that said hello."""
        if isinstance(message, WeightManifest):
            self.manifest = message
        for peer in self._peers:
            await self.server.push(peer, message)

    @property
    def last_beat(self) -> Heartbeat:
        """The newest heartbeat; an empty one before the first."""
        return self.heartbeats[-1] if self.heartbeats else Heartbeat(name="nobody")

    async def until(self, holds, timeout_s: float = 60.0) -> None:
        """Wait until `holds()` is true, looking after each request."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(holds), timeout_s)

    async def close(self) -> None:
        """Stop serving."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self.server.close()


@dataclass
class FakePrompt:
    """`tasks.Prompt`."""

    messages: list[dict[str, str]]
    reference: object = None


class CountingTask:
    """Prompt i is the numbers i, i + 1, i + 2; prompt 13 is far too long."""

    name = "counting"

    def __len__(self) -> int:
        return 1000

    def prompt(self, index: int) -> FakePrompt:
        numbers = range(index % 50, index % 50 + (500 if index == 13 else 3))
        return FakePrompt([{"role": "user", "content": " ".join(str(number % 100) for number in numbers)}])


@dataclass
class FakeReward:
    """`tasks.Reward`."""

    value: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass
class FakeOutcome:
    """`tasks.runner.Outcome`."""

    reward: FakeReward | None
    failure: str | None = None


class LengthRunner:
    """Rewards the number of words; fails for the prompts in `failing`; waits for `gate`."""

    def __init__(self, failing: tuple[int, ...] = ()) -> None:
        self.failing = failing
        self.gate = asyncio.Event()
        self.gate.set()

    async def score(self, index: int, completions: list[str]) -> list[FakeOutcome]:
        await self.gate.wait()
        if index in self.failing:
            return [FakeOutcome(None, "it raised ValueError") for _ in completions]
        lengths = [float(len(completion.split())) for completion in completions]
        return [FakeOutcome(FakeReward(length, {"length": length})) for length in lengths]

    async def close(self) -> None:
        """Nothing to end."""
