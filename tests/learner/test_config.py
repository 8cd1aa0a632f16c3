from __future__ import annotations

import pytest
from pydantic import ValidationError

from learner.config import AlgorithmConfig, LearnerConfig


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
    [("grpo", "weight_clip", 3.0), ("policy_gradient", "weight_level", "token"), ("rapid", "clip_high", 0.28)],
)
def test_a_switch_that_the_loss_does_not_read_is_refused(loss, field, value):
    with pytest.raises(ValidationError, match=f"algorithm.{field}"):
        AlgorithmConfig(loss=loss, **{field: value})


def test_a_resolved_configuration_is_read_again():
    for config in (AlgorithmConfig(loss="grpo", clip_high=0.28), AlgorithmConfig(weight_clip=None), LearnerConfig()):
        assert type(config).model_validate_json(config.model_dump_json()) == config


def test_the_constant_normaliser_needs_its_constant_and_no_other_takes_one():
    AlgorithmConfig(normaliser="constant", normaliser_tokens=16)
    for options in ({"normaliser": "constant"}, {"normaliser_tokens": 16}):
        with pytest.raises(ValidationError, match="normaliser_tokens"):
            AlgorithmConfig(**options)


@pytest.mark.parametrize(
    ("options", "level", "bounds"),
    [
        ({}, "sequence", (None, 2.0)),
        ({"loss": "policy_gradient"}, "sequence", (None, None)),
        ({"loss": "grpo", "clip_high": 0.28}, "token", (0.8, 1.28)),
    ],
)
def test_diagnostics_follow_the_loss(options, level, bounds):
    config = AlgorithmConfig(**options)
    assert config.ratio_level == level
    assert config.ratio_bounds == bounds
