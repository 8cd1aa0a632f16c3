"""The scripted engine: a stand-in for vLLM that is deterministic, and as fast or slow as one likes.

Behind its log-probabilities stands the real model, run by transformers in float32: the loss sees honest numbers.
Each draw depends on (seed, entry, completion, version, position) alone, and each group is computed for itself, so that
nothing that else goes on at the same time can change a single bit of it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import mmap
import time
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xxhash

from actors.config import ActorsConfig, ScriptedConfig
from actors.engine import Completion, EngineDiedError, EngineError, EngineMetrics, GenerateRequest, WeightSnapshot
from protocol.version import PolicyVersion

if TYPE_CHECKING:
    import torch


class Clock(Protocol):
    """Time, so that tests can set it."""

    def time(self) -> float:
        """Seconds."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """Real time."""

    def time(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait, letting others run even for no time at all."""
        await asyncio.sleep(seconds)


class ScriptedEngine:
    """See actors.engine.Engine.

    Args:
        model_path: folder in transformers' format.
        stop_token_ids: what ends a completion.
        clock: what paces the engine if `actors.scripted.tokens_per_s` is set.
    """

    def __init__(
        self,
        model_path: Path,
        config: ActorsConfig,
        stop_token_ids: tuple[int, ...],
        clock: Clock | None = None,
    ) -> None:
        self._model_path, self._config = model_path, config
        self._stop_token_ids = np.asarray(stop_token_ids, np.int32)
        self._clock = clock or SystemClock()
        self._model: torch.nn.Module | None = None
        self._version: PolicyVersion | None = None
        # One thread computes, so that weights change between two steps and never within one.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "rapid-scripted")
        self._awake = asyncio.Event()
        self._awake.set()
        self._free_at_s = 0.0
        self._generated_tokens = self._active_sequences = 0
        self._load_s = 0.0

    @property
    def version(self) -> PolicyVersion | None:
        """The weights loaded."""
        return self._version

    @property
    def metrics(self) -> EngineMetrics:
        """Counts for telemetry."""
        return EngineMetrics(self._generated_tokens, self._active_sequences, self._load_s)

    async def start(self, version: PolicyVersion | None = None) -> None:
        """Load the model. Raises EngineError."""
        try:
            self._model = await self._compute(_load_model, self._model_path)
        except Exception as error:  # transformers raises many types for a model that it cannot load.
            raise EngineError(f"transformers could not load the model {self._model_path}: {error}") from error
        self._version = version

    async def generate(self, request: GenerateRequest) -> list[Completion]:
        """The completions, in order."""
        if self._model is None or self._version is None:
            raise EngineDiedError("the scripted engine has no weights; call start() and load_weights() first")
        script = GroupScript(request, self._config.scripted, self._stop_token_ids)
        self._active_sequences += request.num_completions
        try:
            while script.num_open:
                await self._awake.wait()
                num_drawn = await self._compute(self._step, script)
                self._generated_tokens += num_drawn
                await self._pace(num_drawn)
        finally:
            self._active_sequences -= request.num_completions
        return script.completions()

    def _step(self, script: GroupScript) -> int:
        assert self._version is not None
        return script.draw(_next_logprobs(self._model, script.token_ids, script.temperature), self._version)

    async def _pace(self, num_tokens: int) -> None:
        rate = self._config.scripted.tokens_per_s
        if rate == 0:
            return
        now_s = self._clock.time()
        self._free_at_s = max(now_s, self._free_at_s) + num_tokens / rate
        await self._clock.sleep(self._free_at_s - now_s)

    async def load_weights(self, snapshot: WeightSnapshot) -> None:
        """Load between two steps."""
        started_s = time.monotonic()
        try:
            await self._compute(self._replace_weights, snapshot)
        except Exception as error:  # Whatever it was, the weights may be half replaced.
            raise EngineDiedError(f"loading version {snapshot.version} failed: {error}") from error
        self._load_s = time.monotonic() - started_s

    def _replace_weights(self, snapshot: WeightSnapshot) -> None:
        _copy_weights(self._model, snapshot)
        self._version = snapshot.version

    async def sleep(self) -> None:
        """Take no further step."""
        self._awake.clear()

    async def wake(self) -> None:
        """Go on."""
        self._awake.set()

    async def close(self) -> None:
        """End the thread, after the step under way."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._model = None

    async def _compute(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


class GroupScript:
    """The tokens of one group while it grows. All G rows have the same length; a row that is done is padded."""

    def __init__(self, request: GenerateRequest, config: ScriptedConfig, stop_token_ids: np.ndarray) -> None:
        self._request, self._stop_token_ids = request, stop_token_ids
        num_rows = request.num_completions
        self.temperature = request.temperature
        self.token_ids = np.tile(request.prompt_token_ids.astype(np.int64), (num_rows, 1))
        """int64[G, P + n]."""
        self._logprobs: list[np.ndarray] = []
        self._versions: list[PolicyVersion] = []
        self._limits = draw_lengths(config, request)
        self._lengths = np.zeros(num_rows, np.int64)
        self._stopped = np.zeros(num_rows, bool)
        self._open = np.ones(num_rows, bool)

    @property
    def num_open(self) -> int:
        """Rows that are not done."""
        return int(self._open.sum())

    def draw(self, logprobs: np.ndarray, version: PolicyVersion) -> int:
        """Append a token to each row. `logprobs` is float64[G, vocabulary]; returns how many rows were open."""
        position = len(self._versions)
        chosen = np.array([self._draw_row(row, logprobs[row], version, position) for row in range(len(logprobs))])
        num_open = self.num_open
        self.token_ids = np.concatenate([self.token_ids, chosen[:, None]], axis=1)
        self._logprobs.append(logprobs[np.arange(len(chosen)), chosen].astype(np.float32))
        self._versions.append(version)
        self._lengths += self._open
        self._stopped |= self._open & np.isin(chosen, self._stop_token_ids)
        self._open &= ~self._stopped & (self._lengths < self._limits)
        return num_open

    def _draw_row(self, row: int, logprobs: np.ndarray, version: PolicyVersion, position: int) -> int:
        cumulative = np.cumsum(np.exp(logprobs))
        share = uniform(self._request.seed, self._request.entry_id, row, str(version), position)
        return int(np.searchsorted(cumulative, share * cumulative[-1], side="right").clip(max=len(logprobs) - 1))

    def completions(self) -> list[Completion]:
        """One for each row."""
        drawn = self.token_ids[:, len(self._request.prompt_token_ids) :].astype(np.int32)
        logprobs = np.stack(self._logprobs, axis=1)
        return [
            Completion(
                drawn[row, :length].copy(),
                logprobs[row, :length].copy(),
                merge_versions(self._versions[:length]),
                "stop" if self._stopped[row] else "length",
            )
            for row, length in enumerate(self._lengths.tolist())
        ]


def uniform(*key: object) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return (xxhash.xxh3_64_intdigest("/".join(map(str, key)).encode()) >> 11) / 2**53


def draw_lengths(config: ScriptedConfig, request: GenerateRequest) -> np.ndarray:
    """int64[G], the most tokens that each completion may have."""
    shares = np.array(
        [uniform(request.seed, request.entry_id, row, "length") for row in range(request.num_completions)]
    )
    low = min(config.min_tokens, request.max_tokens)
    if config.lengths == "uniform":
        lengths = low + np.floor(shares * (request.max_tokens - low + 1))
    elif config.lengths == "geometric":
        lengths = low + np.floor(-np.log1p(-shares) * config.mean_tokens)
    else:
        lengths = np.full(request.num_completions, request.max_tokens)
    return np.minimum(lengths, request.max_tokens).astype(np.int64)


def merge_versions(versions: list[PolicyVersion]) -> list[tuple[PolicyVersion, int]]:
    """Runs of equal versions, with their lengths."""
    spans: list[tuple[PolicyVersion, int]] = []
    for version in versions:
        if spans and spans[-1][0] == version:
            spans[-1] = (version, spans[-1][1] + 1)
        else:
            spans.append((version, 1))
    return spans


def _load_model(model_path: Path) -> torch.nn.Module:
    import torch
    from transformers import AutoModelForCausalLM

    # More threads would split sums in ways that differ from machine to machine.
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()


def _next_logprobs(model: torch.nn.Module, token_ids: np.ndarray, temperature: float) -> np.ndarray:
    """float64[G, vocabulary], of the token that follows each row."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(token_ids), use_cache=False, logits_to_keep=1).logits[:, -1].double()
        if temperature == 0:
            # The limit of the distribution: all on the likeliest token.
            return torch.full_like(logits, -torch.inf).scatter_(-1, logits.argmax(-1, keepdim=True), 0.0).numpy()
        return torch.log_softmax(logits / temperature, dim=-1).numpy()


def _copy_weights(model: torch.nn.Module, snapshot: WeightSnapshot) -> None:
    import torch

    manifest = snapshot.manifest
    parameters = dict(model.named_parameters())
    with snapshot.path.open("rb") as file:
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    offset = 0
    with torch.no_grad():
        for name, dtype_name, shape in zip(manifest.names, manifest.dtypes, manifest.shapes, strict=True):
            dtype = getattr(torch, dtype_name)
            if name in parameters:
                source = torch.frombuffer(buffer, dtype=dtype, count=prod(shape), offset=offset)
                parameters.pop(name).copy_(source.view(shape))
            offset += prod(shape) * dtype.itemsize
    if parameters:
        raise ValueError(f"the weights of {snapshot.version} lack {sorted(parameters)}; is it another model?")
