"""The vLLM engine: AsyncLLM with its native interface for reinforcement learning.

All G completions of a prompt are one request; they share the prompt's full KV blocks. vLLM's label of the weights is
`str(PolicyVersion)`, so that it reports for each completion which tokens came from which version.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.config import ActorsConfig
from actors.engine import Completion, EngineDiedError, EngineError, EngineMetrics, GenerateRequest, WeightSnapshot
from actors.engine_process import engine_environment
from actors.gpu_transfer import GpuTransfer
from actors.snapshots import ENGINE_PREFIX
from protocol.config import ModelConfig, WeightsConfig
from protocol.core_loan import CoreLoan
from protocol.messages import WeightManifest
from protocol.version import PolicyVersion

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput
    from vllm.v1.engine.async_llm import AsyncLLM

    from actors.vllm_stats import EngineStats

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0
_BACKENDS = {"zmq": "rapid", "nccl": "nccl", "ipc": "ipc"}


class VllmEngine:
    """See actors.engine.Engine.

    Args:
        model_path: folder in transformers' format.
        stop_token_ids: what ends a completion.
        seed: of the engine.
        cores: CPU cores of the engine process. None leaves them to the system.
        loan: cores that it may use at times.
        index: of the actor, from 0: its place among the receivers of weights by nccl.
    """

    def __init__(
        self,
        model_path: Path,
        model: ModelConfig,
        config: ActorsConfig,
        weights: WeightsConfig,
        stop_token_ids: tuple[int, ...],
        seed: int = 0,
        cores: list[int] | None = None,
        index: int = 0,
        loan: CoreLoan | None = None,
    ) -> None:
        self._model_path, self._model, self._config, self._weights = model_path, model, config, weights
        self._stop_token_ids, self._seed, self._cores = list(stop_token_ids), seed, cores
        self._loan = loan
        self._folder = tempfile.TemporaryDirectory(prefix=ENGINE_PREFIX, ignore_cleanup_errors=True)
        self._folder_lock: int | None = os.open(self._folder.name, os.O_RDONLY)
        fcntl.flock(self._folder_lock, fcntl.LOCK_EX)
        self._starting: asyncio.Task[AsyncLLM] | None = None
        self._llm: AsyncLLM | None = None
        self._stats: EngineStats | None = None
        self._version: PolicyVersion | None = None
        self._gpu_transfer = GpuTransfer(index)
        self._update = asyncio.Lock()
        self._asleep = False
        self._request_numbers = itertools.count()
        self._generated_tokens = self._active_sequences = 0
        self._load_s = 0.0

    @property
    def version(self) -> PolicyVersion | None:
        """The weights loaded."""
        return self._version

    @property
    def metrics(self) -> EngineMetrics:
        """Counts for telemetry."""
        waiting, kv_cache = (0, None) if self._stats is None else (self._stats.waiting, self._stats.kv_cache_fraction)
        return EngineMetrics(self._generated_tokens, self._active_sequences, self._load_s, waiting, kv_cache)

    async def start(self, version: PolicyVersion | None = None) -> None:
        """Start the engine process. Raises EngineError with vLLM's reason."""
        self._starting = asyncio.create_task(asyncio.to_thread(self._build))
        try:
            # A thread cannot be cancelled: whoever stops waiting leaves it to `close` to end what it starts.
            self._llm = await asyncio.shield(self._starting)
        except Exception as error:  # vLLM raises many types for what it cannot serve.
            raise EngineError(f"vLLM did not start with the model {self._model_path}: {error}") from error
        if version is not None:
            await self._llm.update_weight_version(str(version))
            self._version = version

    def _build(self) -> AsyncLLM:
        # The environment must be there before vLLM is imported, and before the engine process is spawned.
        takes_handles = self._weights.transport == "ipc"
        with engine_environment(self._cores, self._folder.name, loan=self._loan, takes_handles=takes_handles):
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            import actors.transfer  # noqa: F401  vLLM looks the transfer up when it checks its configuration
            from actors.vllm_stats import EngineStats, listen

            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**self.engine_args()), stat_loggers=[EngineStats])
            self._stats = listen(llm)
            return llm

    def engine_args(self) -> dict[str, Any]:
        """Arguments of vLLM's AsyncEngineArgs."""
        config = self._config
        return {
            "model": str(self._model_path),
            "dtype": self._model.dtype,
            "max_model_len": self._model.max_context,
            "max_num_seqs": config.max_sequences,
            "max_num_batched_tokens": config.max_batched_tokens,
            "kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30),
            "block_size": config.block_tokens,
            "enable_prefix_caching": True,
            "enforce_eager": True,
            "skip_tokenizer_init": True,
            "logprobs_mode": "processed_logprobs",
            "seed": self._seed % 2**31,
            "distributed_executor_backend": "actors.executor.ActorExecutor",
            "weight_transfer_config": {
                "backend": "rapid" if self._weights.transport == "zmq" else self._weights.transport
            },
            "enable_sleep_mode": config.sleep_mode,
            "disable_log_stats": True,
            "enable_log_requests": False,
        }

    async def generate(self, request: GenerateRequest) -> list[Completion]:
        """The completions, in order. Errors as in actors.engine.Engine."""
        self._active_sequences += request.num_completions
        try:
            outputs = await self._run(request)
        finally:
            self._active_sequences -= request.num_completions
        completions = [_read_completion(output) for output in outputs]
        self._generated_tokens += sum(len(completion.token_ids) for completion in completions)
        return completions

    async def _run(self, request: GenerateRequest) -> list[CompletionOutput]:
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        # The salt keeps the KV blocks of one version from prompts that begin with the next.
        prompt = tokens_input(request.prompt_token_ids.tolist(), cache_salt=str(self._version))
        name = f"{request.entry_id}-{next(self._request_numbers)}"
        try:
            async for output in self._engine.generate(prompt, self._sampling(request), name):
                if output.finished:
                    return output.outputs
        except EngineDeadError as error:
            raise EngineDiedError(f"the vLLM engine died while it generated {request.entry_id}") from error
        except Exception as error:  # The engine lives, so that only this request failed.
            raise EngineError(f"vLLM refused the prompt of {request.entry_id}: {error}") from error
        raise EngineError(f"vLLM ended {request.entry_id} without a result")

    def _sampling(self, request: GenerateRequest) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        return SamplingParams(
            n=request.num_completions,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            # No seed: with one of its own, a request whose prompt is cut between two steps kills vLLM 0.32 on the CPU
            # ("CPU Generator does not use offset"). The engine's seed is what there is.
            stop_token_ids=self._stop_token_ids,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def load_weights(self, snapshot: WeightSnapshot) -> None:
        """Pause, load, resume. Raises EngineDiedError: weights loaded half-way are no policy at all."""
        async with self._update:
            try:
                await self._replace_weights(snapshot)
            except Exception as error:  # Whatever it was, the weights may be half replaced.
                raise EngineDiedError(f"loading version {snapshot.version} into vLLM failed: {error}") from error

    async def _replace_weights(self, snapshot: WeightSnapshot) -> None:
        engine = self._engine
        await engine.pause_generation(mode="keep", clear_cache=False)
        # Only from here on does nothing move: the pause itself waits for the decoding step under way.
        paused_s = time.monotonic()
        if snapshot.path is None:
            await self._gpu_transfer.receive(engine, snapshot.manifest)
        else:
            await self._load_file(snapshot.manifest, snapshot.path)
        self._version = snapshot.version
        if not self._asleep:
            await engine.resume_generation()
        self._load_s = time.monotonic() - paused_s

    async def _load_file(self, manifest: WeightManifest, path: Path) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        engine = self._engine
        payload = {"path": str(path), "names": manifest.names, "dtypes": manifest.dtypes, "shapes": manifest.shapes}
        await engine.start_weight_update()
        await engine.update_weights(WeightTransferUpdateRequest(payload))
        await engine.finish_weight_update(weight_version=str(manifest.version))

    async def sleep(self) -> None:
        """Pause; with `actors.sleep_mode` also give the GPU's memory back."""
        async with self._update:
            if self._asleep:
                return
            self._asleep = True
            if self._config.sleep_mode:
                await self._engine.sleep(level=1, mode="keep")
            else:
                await self._engine.pause_generation(mode="keep", clear_cache=False)

    async def wake(self) -> None:
        """Resume."""
        async with self._update:
            if not self._asleep:
                return
            if self._config.sleep_mode:
                await self._engine.wake_up()
            await self._engine.resume_generation()
            self._asleep = False

    async def close(self) -> None:
        """End the engine process, wait until it is gone, and remove its folder."""
        starting, self._starting, self._llm = self._starting, None, None
        try:
            if starting is not None and (llm := await _result(starting)) is not None:
                await _end(llm)
        finally:
            self._folder.cleanup()
            if self._folder_lock is not None:
                os.close(self._folder_lock)
                self._folder_lock = None

    @property
    def _engine(self) -> AsyncLLM:
        if self._llm is None:
            raise EngineDiedError("the vLLM engine is not running; call start() first")
        return self._llm


async def _result(starting: asyncio.Task[AsyncLLM]) -> AsyncLLM | None:
    try:
        return await starting
    except Exception:  # Whoever started it has heard the reason; it never ran.
        return None


async def _end(llm: AsyncLLM) -> None:
    if llm.output_handler is not None:
        # It would take the end of the engine for a failure, and say so.
        llm.output_handler.cancel()
        await asyncio.wait([llm.output_handler])
    await asyncio.to_thread(_shut_down, llm)


def _shut_down(llm: AsyncLLM) -> None:
    processes = llm.engine_core.resources.engine_manager.processes
    llm.shutdown(_CLOSE_TIMEOUT_S)
    for process in processes:
        # vLLM kills what does not end in time, such as an engine that is paused, but does not wait for it to be gone.
        process.join(_CLOSE_TIMEOUT_S)
    # AsyncLLM shuts down once more when it is deleted, which at the interpreter's end is too late for it.
    llm.shutdown = lambda timeout=None: None  # type: ignore[method-assign]


def _read_completion(output: CompletionOutput) -> Completion:
    token_ids = np.asarray(output.token_ids, np.int32)
    logprobs = output.logprobs
    # The sampled token comes first at each position; with logprobs=0 it is the only one.
    chosen = np.asarray(logprobs.logprobs, np.float32)[logprobs.start_indices]
    spans = [(PolicyVersion.parse(span.version), span.end - span.start) for span in output.weight_versions]
    return Completion(token_ids, chosen, spans, "stop" if output.finish_reason == "stop" else "length")
