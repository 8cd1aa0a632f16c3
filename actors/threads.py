"""The threads of an engine process on a CPU: one on each of its cores, and more on the learner's while that waits."""

from __future__ import annotations

import torch
from vllm import _custom_ops

from protocol.core_loan import Borrower, CoreLoan

# bfloat16 numbers in a cache line, so that rows stay aligned.
_PADDING = 32
# Enough for torch to divide among all threads.
_PARALLEL_NUMBERS = 1 << 20


def borrowed_threads(loan: CoreLoan) -> Borrower:
    """What makes the number of threads that of the cores there are, before each step.

    Raises OSError if the file of the loan cannot be opened.
    """
    _keep_products_apart()
    return Borrower(loan, torch.get_num_threads(), _set_threads)


def _set_threads(number: int) -> None:
    # vLLM replaces torch.set_num_threads by a warning.
    torch._C.set_num_threads(number)
    torch.zeros(_PARALLEL_NUMBERS).add_(1.0)


def _keep_products_apart() -> None:
    """Let a layer have one matrix product for narrow and another for wide steps.

    oneDNN lays a product out for the number of threads there are when it is first made, and vLLM keeps it for all
    inputs of equal rows and row strides. So wide steps get a stride of their own.
    """
    narrow_mm = _custom_ops.onednn_mm
    narrow_threads = torch.get_num_threads()

    def onednn_mm(
        dnnl_handler: _custom_ops.CPUDNNLGEMMHandler, x: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if torch.get_num_threads() == narrow_threads:
            return narrow_mm(dnnl_handler, x, bias)
        rows = x.reshape(-1, dnnl_handler.k)
        padded = rows.new_empty(len(rows), dnnl_handler.k + _PADDING)[:, : dnnl_handler.k].copy_(rows)
        return narrow_mm(dnnl_handler, padded, bias).view(*x.shape[:-1], dnnl_handler.n)

    _custom_ops.onednn_mm = onednn_mm
