"""Drawing tokens on the CPU in one pass over the logits.

vLLM's sampler converts, scales, normalises and adds noise to all logits in passes of their own over tens of MiB: a
fifth of the engine's time at 192 sequences and 49,152 tokens. What an actor needs is one draw and its log-probability.
So rows are taken few at a time, while they lie in the cache, and the token is found by inverting the distribution
function in two stages, first among sums of chunks, then within a chunk; both are summed in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler

_ROWS = 8
_LARGEST_CHUNK = 256
_SMALLEST_CHUNK = 32


class OnePassSampler(Sampler):
    """vLLM's sampler, except that plain sampling from the full distribution goes the short way."""

    def forward(
        self,
        logits: torch.Tensor,
        sampling_metadata: SamplingMetadata,
        predict_bonus_token: bool = False,
        logprobs_mode_override: Any = None,
    ) -> SamplerOutput:
        """See vLLM's Sampler. `logits` is (sequences, vocabulary)."""
        chunk = chunk_length(logits.shape[-1])
        if chunk is None or predict_bonus_token or logprobs_mode_override or not is_plain(sampling_metadata):
            return super().forward(logits, sampling_metadata, predict_bonus_token, logprobs_mode_override)
        token_ids, logprobs = draw(logits, sampling_metadata.temperature, torch.rand(len(logits)).double(), chunk)
        token_ids = token_ids.to(torch.int32)[:, None]
        # Ranks are asked for by nobody here; 0 is none.
        ranks = torch.zeros(len(logits), dtype=torch.int64)
        return SamplerOutput(token_ids, LogprobsTensors(token_ids, logprobs[:, None], ranks))


def is_plain(metadata: SamplingMetadata) -> bool:
    """Whether a batch wants draws from the full distribution at some temperature, and the log-probability of each.

    Logits processors need not be looked at: those that vLLM brings act only on what actors never ask for.
    """
    return (
        metadata.all_random
        and metadata.top_p is None
        and metadata.top_k is None
        and not metadata.generators
        and metadata.max_num_logprobs == 0
        and metadata.no_penalties
        and metadata.allowed_token_ids_mask is None
        and not metadata.bad_words_token_ids
        and not metadata.logprob_token_ids
    )


def chunk_length(vocabulary: int) -> int | None:
    """The largest power of two that divides the vocabulary and is of use; None if there is none."""
    chunk = _LARGEST_CHUNK
    while chunk >= _SMALLEST_CHUNK:
        if vocabulary % chunk == 0:
            return chunk
        chunk //= 2
    return None


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, uniform: torch.Tensor, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token for each row, and its log-probability.

    Args:
        logits: (B, V), any floating type.
        temperature: float32 (B,).
        uniform: float64 (B,) in [0, 1), what decides the draw.
        chunk: a divisor of V.

    Returns:
        int64 (B,) tokens and float32 (B,) log-probabilities under softmax(logits / temperature).
    """
    batch, vocabulary = logits.shape
    token_ids = torch.empty(batch, dtype=torch.int64)
    logprobs = torch.empty(batch, dtype=torch.float32)
    weights = torch.empty(min(batch, _ROWS), vocabulary)
    for start in range(0, batch, _ROWS):
        rows = slice(start, min(start + _ROWS, batch))
        _draw_rows(
            logits[rows],
            temperature[rows],
            uniform[rows],
            weights[: rows.stop - start].view(-1, vocabulary // chunk, chunk),
            token_ids[rows],
            logprobs[rows],
        )
    return token_ids, logprobs


def _draw_rows(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    uniform: torch.Tensor,
    weights: torch.Tensor,
    token_ids: torch.Tensor,
    logprobs: torch.Tensor,
) -> None:
    """Fills `token_ids` and `logprobs`; `weights` (B, chunks, chunk) is scratch memory."""
    flat = weights.view(len(logits), -1)
    flat.copy_(logits).div_(temperature[:, None])
    shift = flat.amax(-1, keepdim=True)
    flat.sub_(shift).exp_()
    chunk_sums = weights.sum(-1).double()  # (B, chunks)
    cumulative = chunk_sums.cumsum(-1)
    total = cumulative[:, -1:]
    wanted = uniform[:, None] * total
    chosen_chunk = torch.searchsorted(cumulative, wanted, right=True).clamp_(max=weights.shape[1] - 1)
    before = (cumulative - chunk_sums).gather(1, chosen_chunk)
    inside = weights[torch.arange(len(logits)), chosen_chunk[:, 0]].double().cumsum(-1)  # (B, chunk)
    # Rounding may leave a hair's breadth beyond the chunk's end, or before its beginning.
    within = torch.searchsorted(inside, wanted - before, right=True).clamp_(max=weights.shape[2] - 1)
    torch.add(chosen_chunk[:, 0] * weights.shape[2], within[:, 0], out=token_ids)
    chosen = logits.gather(1, token_ids[:, None]).float() / temperature[:, None]
    logprobs.copy_((chosen - shift - total.log().float())[:, 0])
