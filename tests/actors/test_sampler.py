"""The one-pass sampler draws from softmax(logits / temperature), and says with what probability."""

from __future__ import annotations

import numpy as np
import pytest
import torch

sampler = pytest.importorskip("actors.sampler")

pytestmark = pytest.mark.slow  # importing vLLM takes seconds


def test_each_draw_is_the_inverse_of_the_distribution_function():
    # probabilities 0.1, 0.2, 0.3, 0.4 and nothing else: the bounds are at 0.1, 0.3, 0.6
    logits = torch.full((6, 64), -torch.inf)
    logits[:, [3, 20, 40, 63]] = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    uniform = torch.tensor([0.0, 0.09, 0.11, 0.31, 0.61, 0.999999]).double()
    token_ids, logprobs = sampler.draw(logits, torch.ones(6), uniform, chunk=32)
    assert token_ids.tolist() == [3, 3, 20, 40, 63, 63]
    assert np.allclose(logprobs.exp(), [0.1, 0.1, 0.2, 0.3, 0.4, 0.4])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_and_logprobs_are_those_of_the_softmax(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(64, generator=generator) * 2).to(torch.bfloat16)
    num_draws = 40_000
    token_ids, logprobs = sampler.draw(
        logits.expand(num_draws, -1),
        torch.full((num_draws,), temperature),
        torch.rand(num_draws, generator=generator).double(),
        chunk=32,
    )
    expected = torch.softmax(logits.float() / temperature, -1)
    found = torch.bincount(token_ids, minlength=64) / num_draws
    # the deviation of a frequency is sqrt(p (1 - p) / 40000) < 0.0025; five of them
    assert (found - expected).abs().max() < 0.0125
    assert torch.allclose(logprobs, expected.log()[token_ids], atol=1e-5)


def test_rows_do_not_depend_on_their_neighbours():
    generator = torch.Generator().manual_seed(1)
    logits, uniform = torch.randn(21, 96, generator=generator), torch.rand(21, generator=generator).double()
    together = sampler.draw(logits, torch.ones(21), uniform, chunk=32)
    alone = [sampler.draw(logits[i : i + 1], torch.ones(1), uniform[i : i + 1], chunk=32) for i in range(21)]
    assert together[0].tolist() == [token_ids.item() for token_ids, _ in alone]
    assert together[1].tolist() == [logprobs.item() for _, logprobs in alone]


def test_chunk_length_divides_the_vocabulary():
    # 49152 = 192 * 256, 151936 = 1187 * 128, 32001 is odd
    assert [sampler.chunk_length(size) for size in (49152, 151936, 128, 32001)] == [256, 128, 128, None]
