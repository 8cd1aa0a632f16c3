"""The language model's head fused with the log-softmax, so that logits are written once and read once.

    K  completion tokens        V  vocabulary        D  hidden size

With p = softmax(z / τ), z = h Wᵀ, and g the gradient that arrives at log p(target):

    D = p − onehot(target)        ∂h = −g (D W) / τ        ∂W = −Dᵀ (g h) / τ

so the matrix D is all that the backward pass needs: it takes the place of the logits in memory, in the model's type,
and is never scaled. The target is subtracted in float32, since 1 − p would not survive in bfloat16 where p is near 1.
Plain autograd keeps three float32 tensors of K·V instead, and passes over them nine times.

The entropy H = −Σ p log p has the gradient −p (log p + H) / τ by z. Where it is wanted too, D alone does not do: the
backward pass makes the softmax once more, and both gradients of z at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# D up to this size is kept from the forward pass; beyond, it is computed again in blocks of this size.
BLOCK_BYTES = 512 * 2**20
# Rows of one matrix product: enough for full speed, while 256 x 49152 logits stay within the last cache level.
MATMUL_ROWS = 256
# Rows of one softmax: their float32 copy, 3 MB at V = 49152, stays in a core's cache. Other devices want width.
SOFTMAX_ROWS = {"cpu": 16}
WIDE_SOFTMAX_ROWS = 1024


def head_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    *,
    with_entropy: bool = False,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log softmax(hidden weightᵀ / temperature) at the targets, float32 (K,); entropies (K,) if asked.

    hidden (K, D) and weight (V, D) of one type, targets int64 (K,). `entropy_gradient` lets the gradient through the
    entropies, at the price of one more product with the weight; they are detached otherwise.
    Raises ValueError for shapes that do not fit.
    """
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or targets.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, targets {tuple(targets.shape)}: "
            "expected (K, D), (V, D) and (K,)"
        )
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}, expected a positive number")
    logprobs, entropies = _HeadLogprobs.apply(hidden, weight, targets, temperature, with_entropy, entropy_gradient)
    return logprobs, entropies if with_entropy else None


def module_logprobs(
    head: nn.Module,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    *,
    with_entropy: bool = False,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same by plain autograd through a head that has to be called as a module; about five times the memory."""
    log_softmax = torch.log_softmax(head(hidden).float() / temperature, -1)
    logprobs = log_softmax.gather(1, targets[:, None]).squeeze(1)
    if not with_entropy:
        return logprobs, None
    log_softmax = log_softmax if entropy_gradient else log_softmax.detach()
    return logprobs, -(log_softmax.exp() * log_softmax).sum(-1)


class _HeadLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        with_entropy: bool,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        num_rows = _block_rows(weight)
        logprobs = hidden.new_empty(len(targets), dtype=torch.float32)
        entropies = torch.empty_like(logprobs) if with_entropy else None
        residuals = None
        for start in range(0, len(targets), num_rows):
            block = slice(start, start + num_rows)
            outputs = logprobs[block], None if entropies is None else entropies[block]
            residuals = _residuals(hidden[block], weight, targets[block], temperature, *outputs)
        ctx.entropy_gradient = with_entropy and entropy_gradient
        is_kept = len(targets) <= num_rows and any(ctx.needs_input_grad) and not ctx.entropy_gradient
        ctx.kept = residuals if is_kept else None
        ctx.temperature = temperature
        ctx.save_for_backward(hidden, weight, targets)
        entropies = torch.empty(0) if entropies is None else entropies
        if not ctx.entropy_gradient:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, grad_entropies: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, targets = ctx.saved_tensors
        if ctx.entropy_gradient:
            return *_backward_of_both(hidden, weight, targets, ctx.temperature, grad, grad_entropies), *[None] * 4
        scales = (-grad / ctx.temperature)[:, None]
        grad_hidden, grad_weight = torch.empty_like(hidden), None
        num_rows = _block_rows(weight)
        for start in range(0, len(targets), num_rows):
            block = slice(start, start + num_rows)
            residuals = ctx.kept
            if residuals is None:
                residuals = _residuals(hidden[block], weight, targets[block], ctx.temperature, None, None)
            grad_hidden[block] = (residuals @ weight).mul_(scales[block])
            scaled_hidden = (hidden[block] * scales[block]).to(hidden.dtype)
            if grad_weight is None:
                grad_weight = residuals.t() @ scaled_hidden
            else:
                grad_weight.addmm_(residuals.t(), scaled_hidden)
        ctx.kept = None
        return grad_hidden, grad_weight, *[None] * 4


def _residuals(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    logprobs: torch.Tensor | None,
    entropies: torch.Tensor | None,
) -> torch.Tensor:
    """softmax − onehot of a block, (K, V) in the model's type; fills `logprobs` and `entropies` where given."""
    residuals = hidden.new_empty(len(hidden), len(weight))
    num_rows = SOFTMAX_ROWS.get(hidden.device.type, WIDE_SOFTMAX_ROWS)
    buffer = residuals.new_empty(min(num_rows, len(hidden)), len(weight), dtype=torch.float32)
    for begin in range(0, len(hidden), MATMUL_ROWS):
        torch.mm(hidden[begin : begin + MATMUL_ROWS], weight.t(), out=residuals[begin : begin + MATMUL_ROWS])
        for start in range(begin, min(begin + MATMUL_ROWS, len(hidden)), num_rows):
            part = slice(start, min(start + num_rows, begin + MATMUL_ROWS, len(hidden)))
            probs = buffer[: part.stop - part.start]
            _softmax_into(probs, residuals[part], temperature)
            columns = targets[part, None]
            if logprobs is not None:
                # The smallest normal number keeps the logarithm finite where a probability underflows.
                target_probs = probs.gather(1, columns).squeeze(1)
                logprobs[part] = target_probs.clamp_min_(torch.finfo(torch.float32).tiny).log_()
            if entropies is not None:
                entropies[part] = torch.special.entr(probs).sum(-1)
            probs.scatter_add_(1, columns, torch.full_like(columns, -1, dtype=torch.float32))
            residuals[part] = probs
    return residuals


def _backward_of_both(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    grad_logprobs: torch.Tensor,
    grad_entropies: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients by hidden states and weight, of log-probabilities and entropies together."""
    grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
    num_rows = SOFTMAX_ROWS.get(hidden.device.type, WIDE_SOFTMAX_ROWS)
    for start in range(0, len(targets), MATMUL_ROWS):
        block = slice(start, min(start + MATMUL_ROWS, len(targets)))
        grad_logits = hidden[block] @ weight.t()
        for begin in range(block.start, block.stop, num_rows):
            rows = slice(begin, min(begin + num_rows, block.stop))
            part = grad_logits[begin - start : rows.stop - start]
            log_softmax = torch.log_softmax(part.float() / temperature, -1)
            probs = log_softmax.exp()
            entropies = -(probs * log_softmax).sum(-1, keepdim=True)
            # −g_H p (log p + H) + g (onehot − p)
            mixed = probs * (-grad_entropies[rows, None] * (log_softmax + entropies) - grad_logprobs[rows, None])
            mixed.scatter_add_(1, targets[rows, None], grad_logprobs[rows, None])
            part.copy_(mixed.div_(temperature))
        grad_hidden[block] = grad_logits @ weight
        grad_weight.addmm_(grad_logits.t(), hidden[block])
    return grad_hidden, grad_weight


def _softmax_into(probs: torch.Tensor, logits: torch.Tensor, temperature: float) -> None:
    """float32 softmax(logits / temperature) into `probs`."""
    if temperature == 1.0:
        torch.softmax(logits, -1, dtype=torch.float32, out=probs)
    else:
        probs.copy_(logits).div_(temperature)
        torch.softmax(probs, -1, out=probs)


def _block_rows(weight: torch.Tensor) -> int:
    return max(MATMUL_ROWS, BLOCK_BYTES // (len(weight) * weight.element_size()))
