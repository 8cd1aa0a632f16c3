"""What the terms of tokens are divided by before they are added up."""

from __future__ import annotations

import torch


def token_scales(
    completion_of: torch.Tensor,
    group_of: torch.Tensor,
    normaliser: str,
    *,
    num_groups: int,
    num_tokens: int,
    constant: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """What each token's term is multiplied by before the sum: (T,).

    With N groups, G completions in the token's group and |y| tokens in its completion: "completion" 1/(N·G),
    "length" 1/(N·G·|y|), "constant" 1/(N·G·constant) (Dr. GRPO, arXiv 2503.20783), "tokens" 1/num_tokens (DAPO).
    """
    lengths_C = torch.bincount(completion_of, minlength=len(group_of))
    if normaliser == "tokens":
        return torch.full(completion_of.shape, 1.0 / num_tokens, device=completion_of.device, dtype=dtype)
    sizes_C = torch.bincount(group_of)[group_of]
    divisors_C = (num_groups * sizes_C).to(dtype)
    if normaliser == "length":
        divisors_C = divisors_C * lengths_C
    elif normaliser == "constant":
        if constant is None:
            raise ValueError("normaliser constant got no normaliser_tokens, expected a number of tokens")
        divisors_C = divisors_C * constant
    elif normaliser != "completion":
        raise ValueError(f"normaliser is {normaliser!r}, expected completion, length, tokens or constant")
    return divisors_C.reciprocal()[completion_of]
