from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from learner.config import AlgorithmConfig, LearnerConfig, LossName
from learner.losses import LOSSES
from learner.presets import PRESETS


@pytest.mark.parametrize(
    ("section", "field"),
    [(AlgorithmConfig, "weight_clip"), (LearnerConfig, "grad_clip"), (LearnerConfig, "keep_checkpoints")],
)
def test_none_can_be_written_in_toml(section, field):
    assert getattr(section(**{field: "none"}), field) is None
    with pytest.raises(ValidationError):
        section(**{field: 0})


def test_batch_groups_must_be_a_multiple_of_the_ranks():
    with pytest.raises(ValidationError, match=r"multiple of learner\.ranks \(5\): take 25"):
        LearnerConfig(ranks=5, batch_groups=24)


def test_decay_rates_lie_below_one():
    with pytest.raises(ValidationError, match=r"learner\.betas"):
        LearnerConfig(betas=(0.9, 1.0))


@pytest.mark.parametrize(
    ("loss", "field", "value"),
    [
        ("grpo", "weight_clip", 3.0),
        ("policy_gradient", "weight_level", "token"),
        ("cispo", "weight_level", "token"),
        ("rapid", "clip_high", 0.28),
        ("gspo", "clip_lag_factor", 0.5),
        ("tis", "mask_high", 3.0),
        ("grpo", "proximal", "recomputed"),
        ("rapid", "m2_threshold", 0.1),
        ("ppo", "sft_reward", 0.5),
        ("sft", "baseline", "plain"),
        ("sft", "advantage_scale", "std"),
        ("icepop", "clip_high", 0.28),
    ],
)
def test_a_switch_that_the_loss_does_not_read_is_refused(loss, field, value):
    with pytest.raises(ValidationError, match=f"algorithm.{field}"):
        AlgorithmConfig(loss=loss, **{field: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "decoupled_ppo"}, r"where the proximal\s+log-probabilities come from"),
        ({"loss": "decoupled_ppo", "proximal": "recomputed", "proximal_lag": 1}, "expected.*interpolated"),
        ({"clip_lag_factor": 0.5, "weight_clip": None}, "expected a clip that it moves"),
        ({"clip_lag_factor": 0.5, "weight_clip": 0.9}, "expected a clip that it moves"),
        ({"clip_lag_factor": 0.5, "weight_clip_low": 1.1}, "expected a clip that it moves"),
        # 1 + (1 − 1)·f^l is 1 at any lag.
        ({"clip_lag_factor": 0.5, "weight_clip": 1.0}, "expected a clip that it moves"),
        ({"clip_lag_factor": 0.5, "weight_clip": None, "weight_clip_low": 1.0}, "expected a clip that it moves"),
        ({"weight_clip_low": 2.5}, "less than algorithm.weight_clip, 2.0"),
        ({"loss": "icepop", "mask_low": 6.0}, "less than algorithm.mask_high, 5.0"),
        ({"kl_estimator": "k1"}, "no reference model: set a kl_coefficient"),
        ({"loss": "sft", "kl_coefficient": 0.1, "kl_estimator": "k1"}, "take k2 or k3"),
    ],
)
def test_switches_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        AlgorithmConfig(**options)


@pytest.mark.parametrize("bounds", [{"weight_clip": 1.0, "weight_clip_low": 0.5}, {"weight_clip_low": 1.0}])
def test_one_clip_that_the_lag_moves_is_enough(bounds):
    assert AlgorithmConfig(clip_lag_factor=0.5, **bounds).clip_lag_factor == 0.5


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_configuration(name):
    assert AlgorithmConfig(**PRESETS[name]).loss == PRESETS[name]["loss"]


def test_a_preset_in_place_of_a_loss_is_answered_with_its_switches():
    with pytest.raises(ValidationError, match=r'write loss = "grpo", baseline = "plain".*clip_high = 0\.28'):
        AlgorithmConfig(loss="dapo")


def test_some_losses_have_defaults_of_their_own():
    gspo = AlgorithmConfig(loss="gspo")
    assert (gspo.clip_low, gspo.clip_high) == (3e-4, 4e-4)
    assert AlgorithmConfig(loss="gspo", clip_low=0.1).clip_low == 0.1
    icepop, decoupled = (AlgorithmConfig(loss=name, proximal="recomputed") for name in ("icepop", "decoupled_ppo"))
    assert (icepop.mask_low, icepop.mask_high) == (0.5, 5.0)
    assert (decoupled.mask_low, decoupled.mask_high) == (None, 5.0)


def test_every_loss_is_implemented():
    assert set(get_args(LossName)) == set(LOSSES)


def test_a_cosine_of_gradients_needs_whole_gradients():
    assert LearnerConfig(gradient_cosine_every=5, zero_stage=2).gradient_cosine_every == 5
    with pytest.raises(ValidationError, match="zero_stage 0, 1 or 2"):
        LearnerConfig(gradient_cosine_every=5, zero_stage=3)


def test_a_resolved_configuration_is_read_again():
    presets = [AlgorithmConfig(**switches) for switches in PRESETS.values()]
    for config in (*presets, AlgorithmConfig(weight_clip=None), AlgorithmConfig(loss="icepop"), LearnerConfig()):
        assert type(config).model_validate_json(config.model_dump_json()) == config


def test_the_constant_normaliser_needs_its_constant_and_no_other_takes_one():
    AlgorithmConfig(normaliser="constant", normaliser_tokens=16)
    for options in ({"normaliser": "constant"}, {"normaliser_tokens": 16}):
        with pytest.raises(ValidationError, match="normaliser_tokens"):
            AlgorithmConfig(**options)


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({}, "sequence"),
        ({"weight_level": "token"}, "token"),
        ({"loss": "policy_gradient"}, "sequence"),
        ({"loss": "grpo", "clip_high": 0.28}, "token"),
        ({"loss": "gspo"}, "length_normalised"),
        ({"loss": "m2po"}, "token"),
    ],
)
def test_diagnostics_follow_the_loss(options, level):
    assert AlgorithmConfig(**options).ratio_level == level
