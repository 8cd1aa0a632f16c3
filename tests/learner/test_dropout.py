"""Models that were made with dropout: the policy that trains is the one that generates."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconConfig, GPT2Config, OPTConfig, PreTrainedConfig

from learner.batch import build_batch
from learner.dropout import switch_off_dropout
from learner.engine import TrainingEngine
from learner.frozen import FrozenPolicy
from learner.packing import pack_micro_batches
from learner.ranks import Ranks, join_ranks
from protocol.version import Lineage, PolicyVersion
from tests.learner.learner_kit import VOCABULARY, learner_config, make_groups, make_model

ALONE = Ranks(0, 1, torch.device("cpu"))
ENDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
# Rates in modules, in numbers of layers, and read from the configuration at each pass.
CONFIGS = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **ENDS),
    "opt": OPTConfig(
        hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, attention_dropout=0.1, **ENDS,
    ),
    "falcon": FalconConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, attention_dropout=0.1, hidden_dropout=0.1, **ENDS
    ),
}  # fmt: skip


def make(config: PreTrainedConfig) -> torch.nn.Module:
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="sdpa")


@pytest.mark.parametrize("has_checkpoints", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_passes_of_the_trainer_agree_with_each_other_and_with_the_frozen_policy(
    name: str, has_checkpoints: bool, tmp_path: Path
) -> None:
    batch = build_batch(make_groups(make_model(tmp_path), PolicyVersion(1, 0)), Lineage(), PolicyVersion(1, 0))
    micro_batch, *_ = pack_micro_batches(batch, range(batch.num_groups), max_tokens=48, attention_cost=0.01)
    join_ranks(0, 1, "127.0.0.1", 0)
    engine = TrainingEngine(make(CONFIGS[name]), learner_config(gradient_checkpointing=has_checkpoints), ALONE)
    found = [engine.token_logprobs(micro_batch, 1.0)[0].detach() for _ in range(2)]
    frozen = FrozenPolicy(make(CONFIGS[name]), "auto", ALONE.device).logprobs(micro_batch, 1.0)
    is_training = engine.model.training
    engine.close()
    assert is_training, "gradient checkpointing wants it"
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], frozen)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configuration_that_is_written_keeps_its_rates(name: str, tmp_path: Path) -> None:
    model = make(CONFIGS[name])
    model.save_pretrained(tmp_path / "before")
    switch_off_dropout(model)
    model.save_pretrained(tmp_path / "after")
    before, after = (json.loads((tmp_path / when / "config.json").read_text()) for when in ("before", "after"))
    assert after == before
    assert any("drop" in key and value for key, value in after.items())
