"""Threads of the learner: looked at before each layer, forward and backward."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from learner.threads import borrow_threads
from protocol.core_loan import FIRST_ACTOR, LEARNER, CoreLoan, Lender


class Layer(nn.Module):
    """Notes the number of threads with which it is computed, on both ways."""

    def __init__(self, told: list[int]) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self._told = told

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor]:
        self._told.append(torch.get_num_threads())
        return (_Tell.apply(self.inner(hidden), self._told),)


class _Tell(torch.autograd.Function):
    @staticmethod
    def forward(context, hidden, told):  # type: ignore[no-untyped-def]
        context.told = told
        return hidden.clone()

    @staticmethod
    def backward(context, gradient):  # type: ignore[no-untyped-def]
        context.told.append(torch.get_num_threads())
        return gradient, None


def main(file: str) -> None:
    """In a process of its own, as the number of threads is that of the whole process."""
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))[-1:]
    told: list[int] = []
    model = nn.Module()
    model.layers = nn.ModuleList(Layer(told) for _ in range(4))
    borrow_threads(CoreLoan(file=Path(file), seat=LEARNER, lent=cores), model)
    actor = Lender(CoreLoan(file=Path(file), seat=FIRST_ACTOR, lent=[]))

    def step() -> None:
        hidden = torch.ones(2, 4)
        for index, layer in enumerate(model.layers):
            (hidden,) = layer(hidden)
            if index == 1:
                actor.note(works=False)
        total = hidden.sum()
        total.register_hook(lambda gradient: actor.note(works=True))
        total.backward()

    step()
    print(told)


def test_each_layer_has_the_threads_that_there_are_cores_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.learner.test_threads", str(tmp_path / "loans")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Two layers while the actor works, two while it waits; then it works again, all the way back.
    assert done.stdout.split("\n")[0] == str([1, 1, 2, 2, 1, 1, 1, 1])


def test_a_loan_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Linear(2, 2)])
    with pytest.raises(OSError, match="loans"):
        borrow_threads(CoreLoan(file=tmp_path / "none" / "loans", seat=LEARNER, lent=[0]), model)
    assert not model.layers[0]._forward_pre_hooks


if __name__ == "__main__":
    main(sys.argv[1])
