"""Attention for short rows on the CPU, registered with transformers under a name of our own.

torch's CPU flash kernel reaches a tenth of a core's speed on rows of some hundred positions, most of all in its
backward pass, and transformers copies the keys and values of grouped heads for it. Two batched matrix products around a
softmax, with the query heads that share a key laid end to end, are four to five times as fast (bench/learner_step.py).
They hold the scores in memory, so that longer rows and other devices still go to torch's kernels.

    R  rows    H, J  query and key heads    L  positions    E  head size
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "rapid_short_rows"
MAX_POSITIONS = 512
# What these products do not compute: with one of them the call goes to transformers' own function.
_EXTRAS = ("position_bias", "cache", "s_aux", "softcap")


def use_short_row_attention(model: nn.Module) -> bool:
    """Make a transformers model that runs sdpa on the CPU use the function here; says whether it does."""
    if model.config._attn_implementation not in ("sdpa", NAME) or model.device.type != "cpu":
        return False
    ALL_ATTENTION_FUNCTIONS.register(NAME, short_row_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def short_row_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of query (R, H, L, E) to key and value (R, J, L, E): (R, L, H, E), no weights.

    `attention_mask` (R or 1, 1, L, L) is bool, additive, or None for causal, as in transformers' sdpa function, which
    takes over wherever this one does not apply.
    """
    has_extras = any(kwargs.get(name) is not None for name in _EXTRAS)
    length = query.shape[2]
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if has_extras or dropout or length > MAX_POSITIONS or key.shape[2] != length or query.device.type != "cpu":
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    mask = _additive(attention_mask, is_causal, query)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _grouped_attention(query, key, value, mask, scale).transpose(1, 2).contiguous(), None


def _grouped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    rows, heads, length, size = query.shape
    groups = rows * key.shape[1]
    scores = torch.bmm((query * scale).reshape(groups, -1, size), key.reshape(groups, length, size).transpose(1, 2))
    if mask is not None:
        # Unseen by autograd: a constant changes no gradient, and an addition in place to a view would have the backward
        # pass copy the gradient of the scores four times.
        scores.detach().view(rows, heads, length, length).add_(mask)
    weights = torch.softmax(scores, -1)
    return torch.bmm(weights, value.reshape(groups, length, value.shape[-1])).view(rows, heads, length, -1)


def _additive(mask: torch.Tensor | None, is_causal: bool, query: torch.Tensor) -> torch.Tensor | None:
    if mask is not None and mask.dtype != torch.bool:
        return mask
    if mask is None:
        if not is_causal:
            return None
        length = query.shape[2]
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=query.device).tril()
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
