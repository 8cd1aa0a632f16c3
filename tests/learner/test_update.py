from __future__ import annotations

import pytest

from learner.update import learning_rate
from tests.learner.learner_kit import learner_config


def rates(steps: int, **fields: object) -> list[float]:
    config = learner_config(lr=1.0, **fields)
    return [learning_rate(step, steps, config) for step in range(steps)]


def test_without_decay_the_rate_stays_after_the_warm_up() -> None:
    assert rates(4, warmup_steps=2) == [0.5, 1.0, 1.0, 1.0]


def test_linear_decay_follows_the_warm_up_and_would_be_over_behind_the_last_step() -> None:
    assert rates(6, warmup_steps=2, lr_decay="linear") == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_cosine_decay_is_half_way_in_the_middle() -> None:
    found = rates(8, lr_decay="cosine")
    assert found[0] == 1.0
    assert found[4] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0


def test_the_decay_ends_at_the_share_asked_for() -> None:
    assert rates(2, lr_decay="linear", lr_end=0.2) == pytest.approx([1.0, 0.6])
    assert learning_rate(2, 2, learner_config(lr=1.0, lr_decay="cosine", lr_end=0.2)) == pytest.approx(0.2)


def test_a_run_that_ends_within_the_warm_up_only_rises() -> None:
    assert rates(2, warmup_steps=4, lr_decay="linear") == [0.25, 0.5]
