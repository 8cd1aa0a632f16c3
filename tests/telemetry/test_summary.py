from __future__ import annotations

import pytest

from telemetry.run_dir import RunDirectory
from telemetry.summary import compute_figures, end_summary, format_duration, ledger_line
from tests.telemetry.fakes import make_record, make_run, make_status


def test_rewards_are_means_of_five_steps() -> None:
    # Windows of five: (0+0+1+1+1)/5 = 0.6, (0+1+1+1+1)/5 = 0.8, (1+1+1+1+0)/5 = 0.8, (1+1+1+0+0)/5 = 0.6
    rewards = (0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0)
    figures = compute_figures([make_record(i, reward_mean=reward) for i, reward in enumerate(rewards, start=1)])
    assert (figures.reward_first, figures.reward_last) == pytest.approx((0.6, 0.6))
    assert figures.reward_best == pytest.approx(0.8)


def test_rates_are_weighed_by_time_and_lags_by_tokens() -> None:
    # 10 s at 100 tokens/s, then 30 s at 20: (1000 + 600) / 40 = 40. Lag 0 for 100 tokens, 2 for 300: 1.5.
    records = [
        make_record(1, wall_s=10.0, trained_tokens_per_s=100.0, tokens_trained=100, lag_mean=0.0, lag_max=0),
        make_record(2, wall_s=40.0, trained_tokens_per_s=20.0, tokens_trained=300, lag_mean=2.0, lag_max=2),
    ]
    figures = compute_figures(records)
    assert figures.trained_tokens_per_s == pytest.approx(40.0)
    assert figures.lag_mean == pytest.approx(1.5)
    assert (figures.lag_max, figures.tokens_trained, figures.elapsed_s) == (2, 400, 40.0)


def test_a_run_without_a_step_has_figures_too() -> None:
    figures = compute_figures([])
    assert (figures.steps, figures.reward_last, figures.trained_tokens_per_s) == (0, None, None)


def test_what_diverged_to_null_does_not_stop_the_figures() -> None:
    nulls = dict.fromkeys(("reward_mean", "lag_mean", "ess_fraction", "wait_s", "generated_tokens_per_s", "loss"))
    figures = compute_figures([make_record(1, **nulls), make_record(2)])
    assert figures.reward_last == 0.25
    assert figures.wait_s == 0.5


def test_the_ledger_line_says_when_the_sum_does_not_add_up() -> None:
    assert ledger_line(make_status()).startswith("6 ready + 24 leased + 14 buffered")
    assert ledger_line(make_status()).endswith("3 dead-letter = 1,284 prompts opened")
    assert "but 1,290 prompts were opened: 6 are unaccounted for" in ledger_line(make_status(opened=1290))


@pytest.mark.parametrize(("seconds", "text"), [(46.6, "47 s"), (59.7, "1:00"), (260, "4:20"), (3860, "1:04:20")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_end_says_where_the_run_lies_what_came_of_it_and_what_to_type(
    run_dir: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_dir.path.parents[1])
    run_dir.checkpoint_path(40).mkdir()
    run_dir.checkpoint_path(100).mkdir()
    records = [make_record(step, reward_mean=step / 100) for step in range(1, 101)]
    text = end_summary(
        run_dir, records, max_staleness=2, status=make_status(), recipe="recipes/q.toml", total_steps=100
    )
    for wanted in (
        "runs/trial\n",
        # means of steps 1-5 and 96-100
        "0.03 at first, 0.98 at last",
        "6:40 for 100 steps",
        "2 at most, within the bound of 2",
        "= 1,284 prompts opened",
        "rapid report trial\n",
        "rapid eval recipes/q.toml --checkpoint runs/trial/checkpoints/step-000100\n",
        "rapid train recipes/q.toml --run trial --resume --set schedule.steps=200\n",
    ):
        assert wanted in text


def test_an_interrupted_run_is_told_how_to_go_on(run_dir: RunDirectory) -> None:
    text = end_summary(run_dir, make_run(10), max_staleness=2, recipe="q.toml", total_steps=100)
    assert "rapid train q.toml --run trial --resume\n" in text
    assert "rapid eval" not in text


def test_a_broken_bound_is_not_hidden(run_dir: RunDirectory) -> None:
    assert "3 at most, BEYOND the bound of 2" in end_summary(run_dir, [make_record(1, lag_max=3)], max_staleness=2)


def test_a_run_without_a_step_points_to_its_logs(run_dir: RunDirectory) -> None:
    assert "none was completed; logs/ says why" in end_summary(run_dir, [], max_staleness=2, total_steps=5)
