"""The threads of a rank on a CPU: one on each of its cores, and more on the engines' while all actors wait."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from protocol.core_loan import Borrower, CoreLoan

# Enough for torch to divide among all threads.
_PARALLEL_NUMBERS = 1 << 20


def borrow_threads(loan: CoreLoan, model: nn.Module) -> None:
    """From now on each layer of `model` looks how many cores there are, in forward and in backward passes.

    Actors wait when the staleness bound holds them up, until a step is committed, and go on while the learner is in
    the middle of the next one: looking once a micro-batch would be too seldom.

    Raises OSError if the file of the loan cannot be opened.
    """
    borrower = Borrower(loan, torch.get_num_threads(), _set_threads)

    def before(module: nn.Module, inputs: Any) -> None:
        borrower.adjust()

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        if hidden.requires_grad:
            # The gradient of its output comes first of all that a layer does on the way back.
            hidden.register_hook(lambda gradient: borrower.adjust())

    # The decoder's layers are the outermost list; those of a layer's experts lie within.
    layers = next((module for module in model.modules() if isinstance(module, nn.ModuleList)), [])
    for layer in layers:
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)


def _set_threads(number: int) -> None:
    torch.set_num_threads(number)
    torch.zeros(_PARALLEL_NUMBERS).add_(1.0)
