"""Every loss in the real trainer: one rank and two, completions padded apart and packed together, give the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from learner.presets import PRESETS
from tests.learner.learner_kit import make_model, run_ranks

# The fixture runs three sets of processes, each for up to 560 s.
pytestmark = pytest.mark.timeout(1800)

SCRIPT = Path(__file__).with_name("train_rank.py")
TIGHT = {"weight_clip": 1.1, "weight_clip_low": 0.9}
METHODS = {
    **PRESETS,
    # As narrow as the tiny model's ratios, so that some tokens are clipped.
    "rapid": {**PRESETS["rapid"], **TIGHT},
    "rapid-lag": {"clip_lag_factor": 0.5, **TIGHT},
    "rapid-token": {"weight_level": "token", "baseline": "self_normalised", **TIGHT},
    "ppo": {"loss": "ppo", "clip_low": 0.1, "clip_high": 0.1},
    "tis": {**PRESETS["tis"], "weight_clip": 1.1, "proximal": "recomputed"},
    "icepop": {**PRESETS["icepop"], "proximal": "interpolated", "mask_low": 0.9, "mask_high": 1.1},
    "areal": {**PRESETS["areal"], "clip_low": 0.002, "clip_high": 0.002},
    "gspo": {**PRESETS["gspo"], "clip_low": 0.05, "clip_high": 0.05},
    "m2po": {**PRESETS["m2po"], "m2_threshold": 0.005},
    # A mean over tokens: of a sum over whole completions float32 leaves fewer than six digits behind the point.
    "kl-k1": {"kl_coefficient": 0.1, "kl_estimator": "k1", "normaliser": "tokens"},
    "kl-k2": {"kl_coefficient": 0.1, "kl_estimator": "k2", "normaliser": "tokens"},
    "kl-k3": {"loss": "grpo", "kl_coefficient": 0.1, "normaliser": "tokens"},
    "m2po-k1": {**PRESETS["m2po"], "kl_coefficient": 0.1, "kl_estimator": "k1"},
    "entropy": {"entropy_coefficient": 0.05, "normaliser": "tokens"},
}
# Other stages gather or split weights and gradients; these losses make forward passes of their own.
STAGES = {"areal": (2, 3), "m2po": (3,), "kl-k3": (3,), "entropy": (3,)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the results of one rank, packed and padded, and of two."""
    model_dir = make_model(tmp_path_factory.mktemp("model"))
    folders = {name: tmp_path_factory.mktemp(name) for name in ("packed", "padded", "two")}
    packed = [{"name": name, "algorithm": switches} for name, switches in METHODS.items()]
    padded = [{**training, "row_layout": "plain"} for training in packed]
    staged = [
        {"name": f"{name}-{stage}", "algorithm": METHODS[name], "stage": stage}
        for name, stages in STAGES.items()
        for stage in stages
    ]
    for name, trainings, num_ranks in (("packed", packed, 1), ("padded", padded, 1), ("two", packed + staged, 2)):
        run_ranks(SCRIPT, [str(model_dir), str(folders[name]), json.dumps(trainings)], num_ranks, timeout_s=560)
    return folders


def compare(found: Path, expected: Path) -> None:
    weights, others = load_file(found.with_suffix(".safetensors")), load_file(expected.with_suffix(".safetensors"))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], atol=1e-6, rtol=0)
    notes, other_notes = (json.loads(path.with_suffix(".json").read_text()) for path in (found, expected))
    # The second step begins with weights that the rounding of the first made differ by up to 1e-6; by how much that
    # moves a sum over whole completions is the processor's to say.
    for note, other, tolerance in zip(notes, other_notes, (1e-6, 5e-6), strict=True):
        for name in note:
            # A gradient's norm sums over all weights, and float32 has seven digits.
            relative = 2e-6 if name == "grad_norm" else 0.0
            assert note[name] == pytest.approx(other[name], abs=tolerance, rel=relative), name


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_padded_and_packed_and_two_ranks_agree(name: str, trained: dict[str, Path]) -> None:
    for other in ("padded", "two"):
        compare(trained[other] / name, trained["packed"] / name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), [(name, stage) for name, stages in STAGES.items() for stage in stages])
def test_extra_forward_passes_work_where_weights_are_split(name: str, stage: int, trained: dict[str, Path]) -> None:
    notes = json.loads((trained["two"] / f"{name}-{stage}.json").read_text())
    expected = json.loads((trained["packed"] / f"{name}.json").read_text())
    for note, other in zip(notes, expected, strict=True):
        for key in note:
            assert note[key] == pytest.approx(other[key], rel=1e-4, abs=1e-5), key


@pytest.mark.slow
def test_the_losses_are_not_all_the_same(trained: dict[str, Path]) -> None:
    notes = {name: json.loads((trained["packed"] / f"{name}.json").read_text())[1] for name in METHODS}
    for name in ("rapid", "ppo", "tis", "icepop", "m2po", "gspo"):
        assert 0 < notes[name]["clipped_fraction"] < 1, name
    for name in ("kl-k1", "kl-k2", "kl-k3"):
        assert notes[name]["kl_reference"] > 0
    assert len({round(note["grad_norm"], 6) for note in notes.values()}) > len(METHODS) - 4
