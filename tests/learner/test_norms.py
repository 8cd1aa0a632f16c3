"""Norms in pieces compute what transformers' do: outputs to the bit, gradients at least as exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from learner import norms

CONFIG = LlamaConfig(
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=64,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that 10 positions need several, the last of them not full."""
    monkeypatch.setattr(norms, "PIECE_NUMBERS", 4 * 48)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(dtype: torch.dtype) -> LlamaRMSNorm:
    norm = LlamaRMSNorm(48)
    with torch.no_grad():
        norm.weight.copy_(drawn(48, seed=5))
    return norm.to(dtype)


class Holder(nn.Module):
    """What a model needs to be looked through."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def gradients(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """By the input and all parameters, of a weighted sum of the output."""
    leaf = x.clone().requires_grad_()
    out = module(leaf)
    wanted = [leaf, *module.parameters()]
    return list(torch.autograd.grad((out * drawn(*out.shape, seed=7).to(out.dtype)).sum(), wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_the_same_and_gradients_at_least_as_exact(dtype: torch.dtype) -> None:
    theirs = make(dtype)
    ours = copy.deepcopy(theirs)
    assert norms.use_cached_norms(Holder(ours)) == 1
    x = drawn(2, 5, 48).to(dtype)
    assert torch.equal(ours(x), theirs(x))
    exact = gradients(ExactNorm(theirs.weight.double()), x.double())
    for ours_, theirs_, exact_ in zip(gradients(ours, x), gradients(theirs, x), exact, strict=True):
        size, error = exact_.norm(), (ours_.double() - exact_).norm()
        assert error < {torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype] * size
        assert error < 1.05 * (theirs_.double() - exact_).norm() + 1e-7 * size


class ExactNorm(nn.Module):
    """RMSNorm in float64, where transformers computes in float32."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def test_whole_model_is_taken_and_gives_the_same_logits() -> None:
    torch.manual_seed(1)
    theirs = LlamaForCausalLM(CONFIG).to(torch.bfloat16)
    ours = copy.deepcopy(theirs)
    assert norms.use_cached_norms(ours) == 5  # two in each of two layers, and the last
    tokens = torch.arange(20).view(2, 10)
    assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def test_copy_of_a_model_has_norms_of_its_own() -> None:
    model = Holder(make(torch.float32))
    norms.use_cached_norms(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.module.weight.zero_()
    assert twin.module(drawn(3, 48).float()).abs().sum() > 0


class ShiftedNorm(LlamaRMSNorm):
    """A norm of another kind with parts of the same names."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states) + self.weight


def test_norm_that_computes_something_else_stays_as_it_is() -> None:
    shifted = ShiftedNorm(48)
    assert norms.use_cached_norms(Holder(shifted)) == 0
    assert "forward" not in vars(shifted)
