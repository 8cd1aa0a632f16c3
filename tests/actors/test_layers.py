"""vLLM's own kernels in place of its compositions: the same numbers, in one pass."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

layers = pytest.importorskip("actors.layers")

pytestmark = pytest.mark.slow  # importing vLLM takes seconds

WIDTH = 576


@pytest.fixture
def untouched_environment() -> Iterator[None]:
    """vLLM's configuration names libraries that every child of this process would load."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def norm(untouched_environment):
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.layernorm import RMSNorm

    with set_current_vllm_config(VllmConfig()):
        made = RMSNorm(WIDTH, eps=1e-5, dtype=torch.bfloat16)
    with torch.no_grad():
        made.weight.copy_(torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)))
    return made


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.randn(2, 40, WIDTH, generator=torch.Generator().manual_seed(2)).bfloat16()
    return drawn[0].contiguous(), drawn[1].contiguous()


def exact(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """In float64."""
    x = x.double()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * norm.weight.double()


def test_norms_of_a_model_are_the_kernel_and_nothing_else_is_changed(norm):
    linear = torch.nn.Linear(3, 3)
    assert layers.take_kernels(torch.nn.Sequential(norm, linear)) == 1
    x, residual = inputs()
    total = x.double() + residual.double()
    assert torch.allclose(norm(x).double(), exact(norm, x), rtol=2**-7, atol=1e-3)
    normed, summed = norm(x, residual)
    # in place: a composition would have left its input as it was
    assert normed.data_ptr() == x.data_ptr()
    assert summed.data_ptr() == residual.data_ptr()
    assert torch.equal(summed, total.bfloat16())
    assert torch.allclose(normed.double(), exact(norm, total), rtol=2**-6, atol=1e-3)


def test_norm_over_part_of_its_width_stays_as_it_is(norm):
    norm.variance_size_override = WIDTH // 2
    x, _ = inputs()
    expected = norm.forward_native(x)
    layers.take_kernels(norm)
    assert torch.equal(norm(x), expected)


def test_the_executor_takes_them_on_a_cpu(norm, monkeypatch):
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    from actors.engine_process import OWNER_VARIABLE
    from actors.executor import ActorExecutor

    runner = SimpleNamespace(model=torch.nn.Sequential(norm), sampler=SimpleNamespace(logprobs_mode="raw_logprobs"))

    def load(executor):
        executor.driver_worker = SimpleNamespace(worker=SimpleNamespace(model_runner=runner))

    monkeypatch.setenv(OWNER_VARIABLE, str(os.getppid()))
    monkeypatch.setattr("actors.executor.end_with", lambda owner: None)
    monkeypatch.setattr(UniProcExecutor, "_init_executor", load)
    executor = object.__new__(ActorExecutor)
    executor.vllm_config = SimpleNamespace(device_config=SimpleNamespace(device_type="cpu"))
    executor._init_executor()
    x, _ = inputs()
    residual = torch.zeros_like(x)
    assert norm(x, residual)[0].data_ptr() == x.data_ptr()  # in place, as only the kernel is
