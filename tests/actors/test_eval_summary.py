"""What an evaluation is summed up to, worked by hand."""

from __future__ import annotations

import json

import pytest

from actors.evaluation.spec import EvalSpec
from actors.evaluation.summary import Judged, PromptOutcome, summarise
from tasks.config import EvalConfig

SPEC = EvalSpec(ks=(1, 2), samples=4, temperature=0.7, greedy=True)


def judged(*rewards: float | None, tokens: int = 5) -> list[Judged]:
    failed = Judged(None, num_tokens=tokens, failure="the judge is on strike")
    return [failed if reward is None else Judged(reward, num_tokens=tokens) for reward in rewards]


def test_scores_are_means_over_prompts_of_what_was_judged() -> None:
    outcomes = [
        PromptOutcome(judged(1.0, 0.5, 0.0, 0.5), judged(1.0)[0]),  # 1 of 4 right: pass@1 1/4, pass@2 1 − 3/6
        PromptOutcome(judged(0.0, 0.0, 0.0, 0.0), judged(0.0)[0]),
    ]
    found = summarise(outcomes, SPEC)
    assert found["pass_at"]["1"]["mean"] == pytest.approx((0.25 + 0) / 2)
    assert found["pass_at"]["2"]["mean"] == pytest.approx((0.5 + 0) / 2)
    assert found["greedy"]["mean"] == 0.5
    assert found["mean_reward"] == pytest.approx((0.5 + 0) / 2)
    for estimate in (*found["pass_at"].values(), found["greedy"]):
        assert 0 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1
        assert estimate["prompts"] == 2
    assert (found["n_prompts"], found["n_samples"], found["temperature"], found["unjudged"]) == (2, 4, 0.7, 0)
    # 8 drawn and 2 likeliest completions of 5 tokens each.
    assert (found["tokens"], found["tokens_mean"]) == (50, 5)


def test_what_could_not_be_judged_is_left_out_and_counted_and_not_taken_for_wrong() -> None:
    outcomes = [
        PromptOutcome(judged(1.0, None, None, 0.0), judged(None)[0]),  # of two judged one is right
        PromptOutcome(judged(None, None, None, 1.0), judged(1.0)[0]),  # one judged: no pass@2 of this prompt
        PromptOutcome(judged(None, None, None, None), judged(0.0)[0]),
    ]
    found = summarise(outcomes, SPEC)
    assert (found["pass_at"]["1"]["mean"], found["pass_at"]["1"]["prompts"]) == (pytest.approx((0.5 + 1.0) / 2), 2)
    assert (found["pass_at"]["2"]["mean"], found["pass_at"]["2"]["prompts"]) == (1.0, 1)
    assert (found["greedy"]["mean"], found["greedy"]["prompts"]) == (0.5, 2)
    assert found["mean_reward"] == pytest.approx((0.5 + 1.0) / 2)
    assert (found["unjudged"], found["unjudged_reason"]) == (10, "the judge is on strike")


def test_nothing_judged_gives_no_score_rather_than_zero() -> None:
    found = summarise([PromptOutcome(judged(None, None, None, None), judged(None)[0])], SPEC)
    assert (found["pass_at"], found["greedy"], found["mean_reward"]) == ({}, None, None)
    json.dumps(found, allow_nan=False)


def test_levels_of_difficulty_are_scored_by_themselves_and_cover_only_prompts_that_name_one() -> None:
    outcomes = [
        PromptOutcome(judged(1.0, 1.0, 1.0, 1.0), None, "easy"),
        PromptOutcome(judged(1.0, 1.0, 0.0, 0.0), None, "hard"),
        PromptOutcome(judged(0.0, 0.0, 0.0, 0.0), None, "hard"),
        PromptOutcome(judged(0.0, 0.0, 0.0, 0.0), None, None),
    ]
    found = summarise(outcomes, SPEC)
    assert list(found["by_difficulty"]) == ["easy", "hard"]
    assert found["by_difficulty"]["easy"]["pass_at"]["1"]["mean"] == 1.0
    assert found["by_difficulty"]["hard"]["pass_at"]["1"]["mean"] == pytest.approx(0.25)
    assert found["by_difficulty"]["hard"]["n_prompts"] == 2
    assert found["pass_at"]["1"]["mean"] == pytest.approx((1.0 + 0.5) / 4)
    assert found["greedy"] is None


def test_the_share_cut_off_is_of_what_was_generated() -> None:
    drawn = [Judged(0.0, 8, is_truncated=True), Judged(0.0, 4), Judged(None, failure="the prompt is too long")]
    found = summarise([PromptOutcome(drawn)], EvalSpec((1,), 3, 1.0, False))
    assert found["truncated_fraction"] == 0.5
    assert found["tokens_mean"] == 6


def test_a_spec_draws_as_many_as_the_largest_k_unless_told_otherwise() -> None:
    assert EvalSpec.of(EvalConfig(), 0.8) == EvalSpec((1, 8), 8, 0.8, True)
    assert EvalSpec.of(EvalConfig(k=(4, 1), samples=6, temperature=0.5, greedy=False), 0.8) == EvalSpec(
        (1, 4), 6, 0.5, False
    )
