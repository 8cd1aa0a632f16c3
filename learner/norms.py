"""RMSNorm that a CPU computes in pieces which stay in a core's cache.

transformers makes one of a dozen passes over all positions, forward and backward, and each brings its numbers from
memory anew: with SmolLM2-135M the norms are a tenth of a step. Here a few rows at a time go through all passes. Results
are those of transformers to the bit; gradients are summed in float32, where it rounds to the model's type each time.

    N  positions of all rows        D  their width
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

# Three pieces in float32 within 2 MiB, what the second level of a core's cache has.
PIECE_NUMBERS = 128 * 1024
_TYPES = (torch.bfloat16, torch.float32)


def use_cached_norms(model: nn.Module) -> int:
    """Let a model's norms be computed here if it is on the CPU. Returns how many are.

    A norm is taken by its parts, whatever its class, and by a trial that shows that it computes the same.
    """
    if model.device.type != "cpu" or model.dtype not in _TYPES:
        return 0
    return sum(map(_take, model.modules()))


def _take(module: nn.Module) -> bool:
    if not hasattr(module, "weight") or not hasattr(module, "variance_epsilon"):
        return False
    width = len(module.weight)
    probe = torch.linspace(-2.0, 3.0, 2 * width).view(2, width).to(module.weight.dtype)
    with torch.no_grad():
        if not torch.equal(module(probe), _rms_norm(module, probe)):
            return False
    module.forward = partial(_rms_norm, module)  # type: ignore[method-assign]
    return True


def _rms_norm(norm: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    normed: torch.Tensor = _RmsNorm.apply(hidden_states, norm.weight, norm.variance_epsilon)
    return normed


class _RmsNorm(torch.autograd.Function):
    """y = w x̂, x̂ = s x, s = 1 / √(mean x² + ε); ∂x = s (g w − x̂ mean(g w x̂)), ∂w = Σ g x̂."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        x_ND = x.reshape(-1, x.shape[-1])
        normed_ND, scales_N = torch.empty_like(x_ND), x.new_empty(len(x_ND), 1, dtype=torch.float32)
        for rows in _pieces(x_ND):
            wide = x_ND[rows].to(torch.float32)
            torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon, out=scales_N[rows])
            torch.mul(weight, (wide * scales_N[rows]).to(x.dtype), out=normed_ND[rows])
        ctx.save_for_backward(x_ND, weight, scales_N)
        return normed_ND.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x_ND, weight, scales_N = ctx.saved_tensors
        grad_ND, grad_x_ND = grad.reshape(x_ND.shape), torch.empty_like(x_ND)
        wide_weight = weight.to(torch.float32)
        grad_weight = torch.zeros_like(wide_weight)
        for rows in _pieces(x_ND):
            scale, wide_grad = scales_N[rows], grad_ND[rows].to(torch.float32)
            normed = x_ND[rows].to(torch.float32) * scale
            products = wide_grad * normed
            grad_weight += products.sum(0)
            means = torch.mv(products, wide_weight).div_(products.shape[1])
            part = (wide_grad * wide_weight).addcmul_(normed, means[:, None], value=-1).mul_(scale)
            grad_x_ND[rows] = part
        return grad_x_ND.view(grad.shape), grad_weight.to(weight.dtype), None


def _pieces(values_ND: torch.Tensor) -> Iterator[slice]:
    num_rows = max(1, PIECE_NUMBERS // values_ND.shape[-1])
    for start in range(0, len(values_ND), num_rows):
        yield slice(start, start + num_rows)
