"""The threads of an engine process on a CPU: one on each of its cores, and more on the learner's while that waits.

A thread beyond the engine's own exists for nothing but wide steps: between them it sleeps, and never runs beside the
learner. So a narrow step costs what it would without the loan.
"""

from __future__ import annotations

import os

import torch
from vllm import _custom_ops

from protocol.core_loan import Borrower, CoreLoan

# bfloat16 numbers in a cache line, so that rows stay aligned.
_PADDING = 32
# Enough for torch to divide among all threads.
_PARALLEL_NUMBERS = 1 << 20


class BorrowedThreads:
    """Makes the number of threads that of the cores there are, before each step.

    Raises OSError if the file of the loan cannot be opened.
    """

    def __init__(self, loan: CoreLoan) -> None:
        self._borrower = Borrower(loan)
        self._lent = set(loan.lent)
        self._num_own = len(loan.own)
        self._is_wide = False
        _keep_products_apart()

    def adjust(self) -> None:
        """Take the learner's cores, or leave them to it."""
        if self._borrower.may_borrow == self._is_wide:
            return
        self._is_wide = not self._is_wide
        # vLLM replaces torch.set_num_threads by a warning.
        torch._C.set_num_threads(self._num_own + len(self._lent) * self._is_wide)
        if self._is_wide:
            self._place_new_threads()

    def _place_new_threads(self) -> None:
        """OpenMP starts threads when they are first needed, on the cores of the one that asks for them."""
        before = set(os.listdir("/proc/self/task"))
        torch.zeros(_PARALLEL_NUMBERS).add_(1.0)
        for thread in set(os.listdir("/proc/self/task")) - before:
            os.sched_setaffinity(int(thread), self._lent)


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
