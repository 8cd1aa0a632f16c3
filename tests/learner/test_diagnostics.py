from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from learner.diagnostics import batch_diagnostics, effective_sample_fraction

# Three completions of 2, 1 and 2 tokens; the last changed its version between its tokens.
GENERATOR = torch.tensor([-1.0, -1.0, -2.0, -1.0, -3.0])
LOG_RATIOS = torch.tensor([0.5, 0.5, 0.0, -0.5, 0.1])
TRAINER = GENERATOR + LOG_RATIOS
LAGS = torch.tensor([1, 1, 0, 0, 2])
COMPLETION_OF = torch.tensor([0, 0, 1, 2, 2])


# The first completion, and the last token of the third.
CLIPPED = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0])


def diagnose(level="sequence", order=None):
    order = torch.arange(5) if order is None else torch.tensor(order)
    tensors = (TRAINER[order], GENERATOR[order], LAGS[order], COMPLETION_OF[order], CLIPPED[order])
    return batch_diagnostics(*tensors, level=level)


def k3(log_ratio):
    return math.exp(log_ratio) - 1 - log_ratio


def test_sequence_level_worked_by_hand():
    found = diagnose()
    ratios = [math.exp(1.0), 1.0, math.exp(-0.4)]
    assert found["ratio_mean"] == pytest.approx(sum(ratios) / 3)
    assert found["clipped_fraction"] == pytest.approx((1 + 0 + 0.5) / 3)  # shares of the completions' tokens
    assert found["ess_fraction"] == pytest.approx(sum(ratios) ** 2 / (3 * sum(r * r for r in ratios)))
    assert found["kl_behaviour"] == pytest.approx((2 * k3(0.5) + k3(-0.5) + k3(0.1)) / 5, rel=1e-5)
    assert found["logprob_diff_mean"] == 0  # the second alone is wholly of lag 0
    assert found["lag_mean"] == pytest.approx(0.8)  # (1 + 1 + 0 + 0 + 2) / 5
    assert found["lag_max"] == 2


def test_token_level_counts_tokens():
    found = diagnose("token")
    assert found["clipped_fraction"] == pytest.approx(0.6)
    assert found["ratio_mean"] == pytest.approx((2 * math.exp(0.5) + 1 + math.exp(-0.5) + math.exp(0.1)) / 5)


def test_by_lag_worked_by_hand():
    by_lag = diagnose()["by_lag"]
    assert list(by_lag) == [0, 1, 2]
    assert [by_lag[lag]["tokens"] for lag in by_lag] == [2, 2, 1]
    assert [by_lag[lag]["ratios"] for lag in by_lag] == [1, 1, 1]
    assert by_lag[1]["ratio_mean"] == pytest.approx(math.e)
    assert [by_lag[lag]["clipped_fraction"] for lag in by_lag] == [0, 1, 0.5]
    # The last completion counts under its largest lag, its tokens under their own.
    assert by_lag[2]["ratio_p50"] == pytest.approx(math.exp(-0.4))
    assert by_lag[2]["kl_behaviour"] == pytest.approx(k3(0.1), rel=1e-4)


def test_a_lag_without_a_completion_of_its_own_has_no_ratios():
    lags = torch.tensor([1, 1, 1, 0, 2])
    found = batch_diagnostics(TRAINER, GENERATOR, lags, COMPLETION_OF, CLIPPED, level="sequence")
    assert found["by_lag"][0]["ratio_mean"] is None
    assert found["by_lag"][0]["tokens"] == 1


def test_the_difference_between_the_programs_is_taken_where_no_weights_changed():
    lags = torch.tensor([0, 0, 1, 0, 2])
    found = batch_diagnostics(TRAINER, GENERATOR, lags, COMPLETION_OF, CLIPPED, level="token")
    assert found["logprob_diff_mean"] == pytest.approx(0.5)  # the first completion; the last changed in its middle


def test_without_lag_zero_there_is_no_difference_to_report():
    found = batch_diagnostics(TRAINER, GENERATOR, LAGS + 1, COMPLETION_OF, CLIPPED, level="token")
    assert found["logprob_diff_mean"] is None


def test_quantiles_are_of_the_ratios():
    log_ratios = torch.linspace(-1, 1, 101)
    zeros = torch.zeros(101, dtype=torch.int64)
    found = batch_diagnostics(
        log_ratios, torch.zeros(101), zeros, torch.arange(101), torch.zeros(101), level="sequence"
    )
    quantiles = [found["by_lag"][0][name] for name in ("ratio_p05", "ratio_p50", "ratio_p95")]
    assert quantiles == pytest.approx([math.exp(-0.9), 1.0, math.exp(0.9)], rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.sampled_from(["sequence", "token", "length_normalised"]))
def test_order_of_tokens_does_not_matter(order, level):
    mixed, plain = diagnose(level, order=order), diagnose(level)
    # Sums are taken in float64, so that they agree far beyond what is reported.
    for key in ("ratio_mean", "clipped_fraction", "ess_fraction", "kl_behaviour", "logprob_diff_mean", "lag_mean"):
        assert mixed[key] == pytest.approx(plain[key], rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
@example([3.4e-19])
def test_kl_is_never_negative_and_ess_is_a_fraction(log_ratios):
    trainer, zeros = torch.tensor(log_ratios), torch.zeros(len(log_ratios))
    index = torch.arange(len(log_ratios))
    found = batch_diagnostics(trainer, zeros, index % 3, index, zeros, level="sequence")
    assert found["kl_behaviour"] >= 0
    assert 1 / len(log_ratios) - 1e-9 <= found["ess_fraction"] <= 1 + 1e-9


def test_effective_sample_fraction_of_equal_and_of_lone_weights():
    assert effective_sample_fraction(torch.full((4,), 0.3)) == pytest.approx(1)
    assert effective_sample_fraction(torch.tensor([1.0, 0, 0, 0])) == pytest.approx(0.25)


@pytest.mark.parametrize("shift", [-900.0, -400.0, 15.0, 900.0])
def test_effective_sample_fraction_does_not_depend_on_the_scale_of_the_weights(shift):
    log_ratios, zeros = torch.tensor([0.0, 0.0, math.log(2.0)]) + shift, torch.zeros(3)
    found = batch_diagnostics(log_ratios, zeros, zeros.long(), torch.arange(3), zeros, level="sequence")
    assert found["ess_fraction"] == pytest.approx((1 + 1 + 2) ** 2 / (3 * (1 + 1 + 4)), rel=1e-4)
    assert found["by_lag"][0]["ess_fraction"] == found["ess_fraction"]


def test_diagnostics_are_plain_numbers_that_json_takes():
    found = diagnose()
    told = json.loads(json.dumps(found))
    assert told.pop("by_lag") == {str(lag): figures for lag, figures in found.pop("by_lag").items()}
    assert told == found


def test_an_empty_batch_and_unequal_shapes_are_refused():
    empty = torch.zeros(0)
    with pytest.raises(ValueError, match="at least 1"):
        batch_diagnostics(empty, empty, empty.long(), empty.long(), empty, level="token")
    with pytest.raises(ValueError, match="equal lengths"):
        batch_diagnostics(TRAINER, GENERATOR[:3], LAGS, COMPLETION_OF, CLIPPED, level="token")
