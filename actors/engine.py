"""What an inference engine is to an actor: the interface that vLLM and the scripted engine share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from protocol.messages import WeightManifest
from protocol.version import PolicyVersion


class EngineError(Exception):
    """An engine could not do what was asked. The request failed; the engine may go on."""


class EngineDiedError(EngineError):
    """The engine is gone, or its weights are in an unknown state: the actor must end."""


@dataclass(frozen=True, slots=True)
class WeightSnapshot:
    """Weights of one version that are ready to be loaded."""

    version: PolicyVersion
    manifest: WeightManifest
    path: Path | None
    """A file of this machine with the manifest's tensors end to end, verified. None if the transport is not "zmq": the
    engine then receives them itself."""
    fetch_s: float = 0.0
    """Seconds that fetching and verifying took."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """G completions of one prompt."""

    entry_id: str
    prompt_token_ids: np.ndarray
    """int32[P]."""
    num_completions: int
    """G."""
    max_tokens: int
    temperature: float
    """0 takes the likeliest token each time; then `num_completions` must be 1."""
    seed: int
    """Together with `entry_id` decides the draws, as far as the engine is deterministic."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion. An end-of-sequence token that was drawn is its last token: it is trained on too."""

    token_ids: np.ndarray
    """int32[n], n >= 1."""
    logprobs: np.ndarray
    """float32[n], of each token under the distribution it was drawn from, after temperature."""
    spans: list[tuple[PolicyVersion, int]]
    """Versions that generated the tokens, in order, with the number of tokens of each; they add up to n."""
    stop_reason: str
    """"stop" or "length"."""


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """What an engine has done since its start."""

    generated_tokens: int
    active_sequences: int
    """Sequences asked for and not yet done."""
    load_s: float
    """Seconds that the newest weight update stalled generation."""
    waiting_sequences: int = 0
    """Sequences that the engine has accepted and cannot decode yet."""
    kv_cache_fraction: float | None = None
    """Share of the key-value cache in use; None if the engine has none, or does not say."""


class Engine(Protocol):
    """Generates with one set of weights at a time, and takes new weights between two decoding steps."""

    @property
    def version(self) -> PolicyVersion | None:
        """The weights that generate; None before they have a name."""

    async def start(self, version: PolicyVersion | None = None) -> None:
        """Load the model; seconds with vLLM. Raises EngineError.

        Args:
            version: names the weights in the model's folder, which then generate until others are loaded. None
                leaves them without a name: nothing is generated before `load_weights`.
        """

    async def generate(self, request: GenerateRequest) -> list[Completion]:
        """The completions, in order. Cancelling aborts the request.

        Raises:
            EngineError: this request failed.
            EngineDiedError: all do.
        """

    async def load_weights(self, snapshot: WeightSnapshot) -> None:
        """Change to these weights. Sequences under way go on, and their next tokens are of the new version.

        Raises:
            EngineDiedError: loading failed half-way.
        """

    async def sleep(self) -> None:
        """Stop decoding and leave the devices to the learner; sequences under way are kept. Idempotent."""

    async def wake(self) -> None:
        """Go on decoding. Idempotent."""

    async def close(self) -> None:
        """End every process and free all memory. Idempotent."""

    @property
    def metrics(self) -> EngineMetrics:
        """Counts for telemetry."""
