"""The float32 gradient sums of DeepSpeed's BF16_Optimizer, in fewer passes over memory.

DeepSpeed clears them twice a step, and adds each gradient by way of a copy in float32. With 134 M weights that is
3 GB of a step's traffic, and a core moves some 7 GB/s. Here the first gradient of a step takes the place of what the
step before left, and later ones are added as they are: the same sums, to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer


def spare_passes(optimizer: Any) -> bool:
    """Let this optimizer, not used yet, sum gradients as above; whether it does.

    It does on the CPU, where it was measured, if it is DeepSpeed's BF16_Optimizer with float32 sums.
    """
    if type(optimizer) is not BF16_Optimizer or optimizer.has_moe_layers or optimizer.autoep_folding_tp_group:
        return False
    sums = [sums for group in optimizer.fp32_groups_gradients for sums in group]
    if any(one.device.type != "cpu" or one.dtype != torch.float32 for one in sums):
        return False
    optimizer.__class__ = _SparingOptimizer
    return True


class _SparingOptimizer(BF16_Optimizer):
    """Sums are valid where `fp32_groups_has_gradients` says so; elsewhere they hold what an earlier step left."""

    @torch.no_grad()
    def _update_hp_grad(self, lp: torch.Tensor, group_idx: int, param_idx: int, clear_lp_grads: bool) -> None:
        if lp.grad is None:
            return
        total, is_valid = self.fp32_groups_gradients[group_idx][param_idx], self.fp32_groups_has_gradients[group_idx]
        put = total.add_ if is_valid[param_idx] else total.copy_
        put(lp.grad.view(total.shape))
        is_valid[param_idx] = True
        lp._hp_grad = total  # type: ignore[attr-defined]
        if clear_lp_grads:
            lp.grad.zero_()

    def clear_hp_grads(self) -> None:
        self.fp32_groups_has_gradients = [[False] * len(group) for group in self.fp32_groups_gradients]

    def get_grads_for_reduction(self) -> Any:
        self._clear_missing()
        return super().get_grads_for_reduction()

    def step(self, closure: Any = None) -> None:
        self._clear_missing()
        super().step(closure)

    def _clear_missing(self) -> None:
        """A weight that got no gradient in this step has the gradient 0."""
        for sums, is_valid in zip(self.fp32_groups_gradients, self.fp32_groups_has_gradients, strict=True):
            for total, valid in zip(sums, is_valid, strict=True):
                if not valid:
                    total.zero_()
