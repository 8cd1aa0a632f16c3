"""eval.jsonl, and what those who watch a run see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from telemetry.document import document
from telemetry.evaluations import KEYS, append_evaluation, current_evaluations, read_evaluations, wall_s_of
from telemetry.parts import client_parts, describe_waits
from telemetry.plots import write_plots
from telemetry.report.evaluations import evaluation_data
from telemetry.report.page import render_page
from telemetry.report.run_data import load_run
from telemetry.run_dir import RunDirectory
from telemetry.summary import end_summary
from telemetry.view_state import RunInfo, ViewState
from telemetry.widgets import figure_lines
from tests.telemetry.fakes import make_record, make_status

CONFIG = {
    "schedule": {"mode": "async", "max_staleness": 2, "steps": 4},
    "model": {"path": "tiny"},
    "task": {"name": "digits"},
    "learner": {"batch_groups": 8},
    "actors": {"concurrent_groups": 8},
}


def make_evaluation(step: int, incarnation: int = 1, mean: float = 0.5, **changes: Any) -> dict[str, Any]:
    estimate = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "prompts": 20}
    values = {
        "step": step, "incarnation": incarnation, "wall_s": 2.0 * step, "pass_at": {"1": estimate, "8": estimate},
        "greedy": estimate, "mean_reward": mean, "n_prompts": 20, "n_samples": 8, "temperature": 1.0, "unjudged": 0,
        "unjudged_reason": "", "truncated_fraction": 0.25, "tokens_mean": 7.5, "tokens": 1200, "by_difficulty": {},
        "seconds": 3.0, "source": "training",
    }  # fmt: skip
    assert values.keys() == KEYS.keys()
    return values | changes


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "trial")
    run.write_config(CONFIG)
    for step in range(1, 5):
        run.append_metrics(make_record(step, wall_s=2.0 * step))
    return run


def test_lines_are_read_back_one_a_step_and_the_newest_counts(tmp_path: Path) -> None:
    assert read_evaluations(tmp_path) == []
    for one in (make_evaluation(10), make_evaluation(0), make_evaluation(10, mean=0.7)):
        append_evaluation(tmp_path, one)
    with (tmp_path / "eval.jsonl").open("a") as file:
        file.write('{"step": 20, "incarn')
    append_evaluation(tmp_path, make_evaluation(30))
    assert [(one["step"], one["mean_reward"]) for one in read_evaluations(tmp_path)] == [(0, 0.5), (10, 0.7), (30, 0.5)]
    assert [one["step"] for one in read_evaluations(tmp_path, lambda one: one["mean_reward"] < 0.6)] == [0, 10, 30]


def test_a_later_life_supersedes_what_an_earlier_one_did_beyond_its_start() -> None:
    found = current_evaluations(
        [make_evaluation(0), make_evaluation(10), make_evaluation(20), make_evaluation(30), make_evaluation(20, 2)]
    )
    assert [(one["step"], one["incarnation"]) for one in found] == [(0, 1), (10, 1), (20, 2)]


def test_the_time_is_that_of_the_record_of_the_same_life() -> None:
    history = [make_record(1, wall_s=1.0), make_record(2, wall_s=2.0), make_record(2, incarnation=2, wall_s=0.5)]
    assert [wall_s_of(history, *version) for version in ((1, 0), (1, 2), (2, 2), (2, 3))] == [0.0, 2.0, 0.5, None]


def view(**changes: Any) -> ViewState:
    return ViewState(RunInfo("trial", "async", "tiny", 100, 2), **changes)


def plain(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


def test_the_view_shows_the_newest_evaluation_and_of_which_step() -> None:
    told = {key: value for key, value in make_evaluation(2, mean=0.25).items() if key != "wall_s"}
    records = [make_record(1), make_record(2), make_record(3, eval=told)]
    assert "evaluated" not in plain(figure_lines(view(records=records[:2]), 100))
    shown = plain(figure_lines(view(records=records), 100))
    assert "evaluated  pass@1 0.25 [0.15, 0.35]  pass@8 0.25 [0.15, 0.35]  reward 0.25  of step 2" in shown
    # The last one comes when there is no record any more to tell it: the hub does.
    state = view(records=records, status=make_status(evaluations=[make_evaluation(3, mean=0.5)]))
    assert "of step 3, 0.25 of 2" in plain(figure_lines(state, 120))
    assert document(state)["evaluation"]["step"] == 3
    assert document(view(records=records[:1]))["evaluation"] is None


def test_the_evaluator_is_a_part_of_its_own_that_nobody_waits_for() -> None:
    clients = [
        {**make_status()["clients"][0], "name": name, "role": role, "waiting_for": waiting, "seen_s": 0.0}
        for name, role, waiting in (
            ("actor-0", "actor", ""),
            ("eval-0", "evaluator", "weights that are due"),
            ("learner", "learner", ""),
        )
    ]
    parts = client_parts(make_status(clients=clients))
    assert [(part.name, part.activity) for part in parts] == [
        ("learner", "trains"),
        ("eval-0", "waits for weights that are due"),
        ("actor-0", "generates"),
    ]
    assert describe_waits(parts) == ""
    clients[1]["waiting_for"] = ""
    assert client_parts(make_status(clients=clients))[1].activity == "evaluates"
    assert len(view(status=make_status(clients=clients)).actors) == 1


def test_the_report_draws_each_k_with_its_interval_and_tables_difficulty(run_dir: RunDirectory) -> None:
    scores = {"pass_at": {"1": make_evaluation(0)["pass_at"]["1"]}, "greedy": None, "mean_reward": 0.1}
    levels = {"hard": {**scores, "n_prompts": 7}}
    append_evaluation(run_dir.path, make_evaluation(0, mean=0.2))
    append_evaluation(run_dir.path, make_evaluation(4, mean=0.6, by_difficulty=levels, unjudged=3))
    append_evaluation(run_dir.path, make_evaluation(9))  # of a step without a record: it has no place on the axes
    run = load_run(run_dir)
    data = evaluation_data(run)
    assert data["passAt"]["1"] == [[0, 0.0, 0.2, 0.1, pytest.approx(0.3)], [4, 8.0, 0.6, 0.5, 0.7]]
    assert data["rewards"] == [[0, 0.0, 0.2], [4, 8.0, 0.6]]
    page = render_page([run])
    assert 'id="evaluation-charts"' in page
    assert "0.600 [0.500, 0.700]" in page
    assert "hard" in page
    bare = RunDirectory.create(run_dir.path.parent / "bare")
    bare.write_config(CONFIG)
    assert 'id="evaluation-charts"' not in render_page([load_run(bare)])


def test_the_pictures_and_the_end_tell_of_evaluations_only_where_there_are_some(run_dir: RunDirectory) -> None:
    assert "evaluation" not in {path.stem for path in write_plots(run_dir, max_staleness=2)}
    assert "Held out" not in end_summary(run_dir, run_dir.read_metrics(), max_staleness=2)
    for step, mean in ((0, 0.2), (2, 0.4), (4, 0.6)):
        append_evaluation(run_dir.path, make_evaluation(step, mean=mean))
    drawn = {path.stem: path for path in write_plots(run_dir, max_staleness=2)}
    assert drawn["evaluation"].stat().st_size > 10_000
    said = end_summary(run_dir, run_dir.read_metrics(), max_staleness=2)
    assert "pass@1 0.60 (0.50 to 0.70)" in said
    assert "at step 4, 0.20 at step 0" in said
