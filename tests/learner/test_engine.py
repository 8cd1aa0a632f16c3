from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from learner.engine import deepspeed_config, zero_stage_used
from tests.learner.learner_kit import learner_config, make_model, run_ranks

# The fixture runs two sets of processes, each for up to 280 s.
pytestmark = pytest.mark.timeout(900)

SCRIPT = Path(__file__).with_name("train_rank.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders with the results of one rank, which keeps everything, and of two ranks at every stage."""
    model_dir = make_model(tmp_path_factory.mktemp("model"))
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    stages = [{"name": str(stage), "stage": stage} for stage in range(4)]
    in_bf16 = {"name": "bf16", "stage": 1, "dtype": "bfloat16"}
    run_ranks(SCRIPT, [str(model_dir), str(one), json.dumps([stages[0], *with_rehearsed(in_bf16)])], 1)
    run_ranks(SCRIPT, [str(model_dir), str(two), json.dumps([x for one in stages for x in with_rehearsed(one)])], 2)
    return one, two


def with_rehearsed(training: dict) -> list[dict]:
    """The same training once more, after a rehearsal."""
    return [training, {**training, "name": f"{training['name']}-rehearsed", "is_rehearsed": True}]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_ranks_equal_one_rank(stage: int, trained: tuple[Path, Path]) -> None:
    one, two = trained
    expected = load_file(one / "0.safetensors")
    weights = load_file(two / f"{stage}.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=1e-4)
    notes, expected_notes = (json.loads(path.read_text()) for path in (two / f"{stage}.json", one / "0.json"))
    for note, expected_note in zip(notes, expected_notes, strict=True):
        assert note["loss"] == pytest.approx(expected_note["loss"], abs=1e-5)
        assert note["grad_norm"] == pytest.approx(expected_note["grad_norm"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "name"), [(0, "bf16"), (1, "0"), (1, "1"), (1, "2"), (1, "3")])
def test_a_rehearsal_changes_nothing(folder: int, name: str, trained: tuple[Path, Path]) -> None:
    expected = load_file(trained[folder] / f"{name}.safetensors")
    weights = load_file(trained[folder] / f"{name}-rehearsed.safetensors")
    assert weights.keys() == expected.keys()
    for key, weight in weights.items():
        torch.testing.assert_close(weight, expected[key], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("stage", "dtype", "used"),
    [(0, torch.bfloat16, 1), (0, torch.float32, 0), (1, torch.bfloat16, 1), (3, torch.bfloat16, 3)],
)
def test_stage_0_in_bfloat16_sums_gradients_in_float32_as_stage_1_does(
    stage: int, dtype: torch.dtype, used: int
) -> None:
    assert zero_stage_used(stage, dtype) == used
    settings = deepspeed_config(learner_config(), used, dtype)
    assert settings.get("data_types") == ({"grad_accum_dtype": "fp32"} if used == 1 else None)


def test_no_clipping_is_deepspeeds_zero() -> None:
    assert deepspeed_config(learner_config(grad_clip=None), 1, torch.bfloat16)["gradient_clipping"] == 0.0
