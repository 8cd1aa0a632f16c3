from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.learner.learner_kit import learner_config, make_groups, make_model, run_ranks
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

SCRIPT = Path(__file__).with_name("train_rank.py")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def train(model_dir: Path, out: Path, dtype: str, stage: int, num_ranks: int):
    run_ranks(SCRIPT, [str(model_dir), str(out), dtype, str(stage)], num_ranks)
    return load_file(out), json.loads(out.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def reference(model_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    return train(model_dir, tmp_path_factory.mktemp("reference") / "one.safetensors", "float32", 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_ranks_equal_one_rank(stage: int, model_dir: Path, reference, tmp_path: Path) -> None:
    weights, notes = train(model_dir, tmp_path / "two.safetensors", "float32", stage, 2)
    expected, expected_notes = reference
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=1e-4)
    for note, expected_note in zip(notes, expected_notes, strict=True):
        assert note["loss"] == pytest.approx(expected_note["loss"], abs=1e-5)
        assert note["grad_norm"] == pytest.approx(expected_note["grad_norm"], rel=1e-4)
