from __future__ import annotations

from pathlib import Path

import pytest

from learner.warmup import made_up_batch
from protocol.config import ModelConfig
from tests.learner.learner_kit import learner_config, make_settings


@pytest.mark.parametrize(
    ("micro_batch_tokens", "group_size", "max_context", "num_ranks", "prompt", "length", "groups"),
    [
        (4096, 8, 4096, 1, 64, 504, 1),  # as long completions as fit beside the prompt
        (4096, 8, 256, 1, 64, 192, 2),  # as the context allows, and so many groups
        (4096, 8, 256, 2, 64, 192, 4),
        (1024, 8, 100, 1, 50, 50, 2),  # a prompt is at most half of the context
        (48, 8, 4096, 1, 64, 1, 1),  # not even a prompt fits: the smallest there is
    ],
)
def test_the_made_up_batch_fills_micro_batches(
    micro_batch_tokens: int,
    group_size: int,
    max_context: int,
    num_ranks: int,
    prompt: int,
    length: int,
    groups: int,
    tmp_path: Path,
) -> None:
    settings = make_settings(
        tmp_path,
        tmp_path,
        "tcp://127.0.0.1:1",
        learner=learner_config(micro_batch_tokens=micro_batch_tokens, ranks=num_ranks),
        model=ModelConfig(path="none", max_context=max_context),
        group_size=group_size,
        world_size=num_ranks,
        master_port=1 if num_ranks > 1 else 0,
    )
    batch = made_up_batch(settings, vocabulary=64)
    assert batch.prompt_lengths_N.tolist() == [prompt] * groups
    assert batch.lengths_C.tolist() == [length] * (groups * group_size)
    assert batch.group_of_C.bincount().tolist() == [group_size] * groups
    assert batch.completion_of_T.bincount().tolist() == batch.lengths_C.tolist()
    assert len(batch.prompt_ids_P) == prompt * groups
    assert len(batch.generator_logprobs_T) == len(batch.lags_T) == batch.num_tokens
    assert len(batch.rewards_C) == batch.num_completions
    for ids in (batch.prompt_ids_P, batch.token_ids_T):
        assert 0 <= int(ids.min()) <= int(ids.max()) < 64
    assert max(batch.group_tokens()) <= max(micro_batch_tokens, prompt + group_size)
