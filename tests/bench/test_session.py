"""Running a plan: results, interruptions, failures, time limits. `rapid` is a scripted program."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.table.cell import Cell, Places
from bench.table.execute import Executor, Interrupted
from bench.table.session import order_cells, run_session
from bench.table.state import read_state

ROOT = Path(__file__).resolve().parents[2]
FAKE = (sys.executable, str(ROOT / "tests" / "bench" / "fake_rapid.py"))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Places(tmp_path / "results", tmp_path / "work")


def cell(places: Places, arm: str = "rapid", seed: int = 0, *, steps: int = 20, wall_s: float | None = None) -> Cell:
    overrides: dict[str, Any] = {
        "run.seed": seed,
        "run.directory": str(places.work),
        "schedule.steps": steps,
        "schedule.mode": "alternate" if arm == "rapid" else "sync",
        "learner.snapshot_every": 5,
    }
    return Cell("task", arm, seed, "recipe.toml", overrides, (1, 4), wall_s, places)


def executor(said: list[str] | None = None, **options: Any) -> Executor:
    return Executor((said if said is not None else []).append, program=FAKE, **options)


def result(one: Cell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(one.result_path.read_text())
    return found


def test_a_run_leaves_its_result_and_nothing_else(places: Places) -> None:
    one = cell(places)
    outcome = run_session([one], executor())
    assert outcome.ended == [one.name]
    assert [path.name for path in places.work.iterdir()] == [".locks"]
    kept = result(one)
    assert [(point["step"], point["wall_s"], point["samples"]) for point in kept["curve"]] == [
        (5, 5.0, 320),
        (10, 10.0, 640),
        (15, 15.0, 960),
        (20, 20.0, 1280),
    ]
    assert kept["curve"][-1]["pass_at"]["1"]["mean"] == pytest.approx(0.2)
    # 8 groups trained and 4 filtered a step, of 8 completions.
    assert (kept["samples"], kept["samples_generated"]) == (1280, 1920)
    assert kept["config"]["run"]["seed"] == 0
    assert kept["time_s"] == pytest.approx({"generate": 10, "both": 0, "train": 10, "load": 0, "wait": 1})
    assert (kept["lag_mean"], kept["lag_max"]) == (1.0, 2)
    assert [life["how"] for life in kept["lives"]] == ["begun"]
    assert kept["notes"] == []


def test_a_run_that_has_ended_is_never_repeated(places: Places) -> None:
    cells = [cell(places, seed=seed) for seed in (0, 1)]
    run_session(cells[:1], executor())
    before = cells[0].result_path.stat().st_mtime_ns
    assert run_session(cells, executor()).ended == [cells[1].name]
    assert cells[0].result_path.stat().st_mtime_ns == before


def test_ctrl_c_ends_the_run_with_a_checkpoint_and_the_next_session_resumes_it(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ten seconds in all: the interruption must come before the end.
    monkeypatch.setenv("FAKE_STEP_S", "0.5")
    one, other = cell(places), cell(places, seed=1)
    has_steps = one.run_dir / "metrics.jsonl"
    outcome = run_session([one, other], executor(is_interrupted=has_steps.exists))
    assert outcome.left == [one.name, other.name]
    assert not one.result_path.exists()
    num_steps = len(has_steps.read_text().splitlines())
    assert 0 < num_steps < 20

    monkeypatch.setenv("FAKE_STEP_S", "0")
    assert len(run_session([one, other], executor()).ended) == 2
    kept = result(one)
    assert kept["notes"] == ["life 2: resumed"]
    assert [life["status"] for life in kept["lives"]] == [None, 0]
    # The clock is the sum of both lives: a second a step.
    assert kept["wall_s"] == pytest.approx(20.0)
    assert kept["samples"] == 1280


def test_a_run_that_died_without_a_checkpoint_begins_anew_and_says_so(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRAIN", "killed")
    one = cell(places)
    assert "status -9" in run_session([one], executor()).failed[one.name]
    assert run_session([one], executor()).ended == [one.name]
    assert result(one)["notes"] == ["life 2: begun anew"]
    assert len(result(one)["metrics"]["step"]) == 20


def test_a_run_does_not_go_on_with_other_values_than_it_began_with(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stop in ("_evaluate", "_keep"):
        one, failing = cell(places), executor()
        monkeypatch.setattr(failing, stop, _raise_interrupted)
        assert run_session([one], failing).left == [one.name]
        other, said = dataclasses.replace(one, overrides={**one.overrides, "learner.lr": 1e-3}), []
        assert run_session([other], executor(said)).ended == [one.name]
        assert "begun anew" in "".join(said)
        assert result(one)["config"]["learner"]["lr"] == 1e-3
        assert [life["how"] for life in result(one)["lives"]] == ["begun"]
        one.result_path.unlink()


@pytest.mark.parametrize(("holds_lag", "how"), [(False, "resumed"), (True, "begun anew")])
def test_a_run_that_somebody_else_ended_goes_on_the_next_time_unless_it_holds_a_lag(
    holds_lag: bool, how: str, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRAIN", "ended")
    one = cell(places)
    one = dataclasses.replace(one, overrides={**one.overrides, "schedule.hold_staleness": holds_lag})
    assert "ended after step 7 of 20" in run_session([one], executor()).failed[one.name]
    monkeypatch.setenv("FAKE_TRAIN", "")
    assert run_session([one], executor()).ended == [one.name]
    assert (result(one)["steps"], result(one)["notes"]) == (20, [f"life 2: {how}"])


def test_a_run_without_one_of_its_snapshots_is_repeated(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TRAIN", "unwritten")
    one = cell(places)
    assert "no evaluation of steps [10]" in run_session([one], executor()).failed[one.name]
    monkeypatch.setenv("FAKE_TRAIN", "")
    assert run_session([one], executor()).ended == [one.name]
    assert [point["step"] for point in result(one)["curve"]] == [5, 10, 15, 20]


def test_two_sessions_do_each_run_once(places: Places) -> None:
    cells = [cell(places, seed=seed) for seed in range(3)]
    inner = []

    def tell(text: str) -> None:
        # While the first session is at its first run, another one goes through the same plan.
        if text.startswith("1 of 3"):
            inner.append(run_session(cells, executor()))

    outer = run_session(cells, Executor(tell, program=FAKE))
    assert outer.ended == [cells[0].name]
    assert (inner[0].elsewhere, inner[0].ended) == ([cells[0].name], [cells[1].name, cells[2].name])
    assert [len(result(each)["lives"]) for each in cells] == [1, 1, 1]


def test_a_run_that_was_trained_is_only_evaluated(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    one = cell(places)
    failing = executor()
    monkeypatch.setattr(failing, "_evaluate", _raise_interrupted)
    assert run_session([one], failing).left == [one.name]
    assert read_state(one.state_path).is_trained
    steps = (one.run_dir / "metrics.jsonl").read_text()
    monkeypatch.setenv("FAKE_TRAIN", "fail")
    assert run_session([one], executor()).ended == [one.name]
    assert len(result(one)["lives"]) == 1
    assert len(result(one)["metrics"]["step"]) == len(steps.splitlines())


def _raise_interrupted(*_: Any) -> None:
    raise Interrupted


def test_a_run_that_fails_does_not_stop_the_others_and_is_given_up_after_two(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRAIN", "fail")
    cells, said = [cell(places, seed=seed) for seed in (0, 1)], []
    assert set(run_session(cells, executor(said)).failed) == {each.name for each in cells}
    assert "status 1" in "".join(said)
    run_session(cells, executor())
    monkeypatch.setenv("FAKE_TRAIN", "")
    assert "failed 2 times before" in run_session(cells, executor()).failed[cells[0].name]


def test_a_run_that_diverges_is_a_result(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TRAIN", "diverge")
    one = cell(places)
    assert run_session([one], executor()).ended == [one.name]
    kept = result(one)
    assert kept["notes"] == ["diverged after step 12: a loss or gradient was not finite"]
    assert [point["step"] for point in kept["curve"]] == [5, 10]


def test_a_run_ends_when_its_wall_time_is_over(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "0.05")
    one = cell(places, steps=1000, wall_s=8.0)
    assert run_session([one], executor()).ended == [one.name]
    kept = result(one)
    assert 8 <= kept["steps"] < 1000
    assert kept["notes"] == [f"ended by budget.wall_s at step {kept['steps']}"]


def test_no_run_is_begun_that_does_not_fit_the_time(places: Places) -> None:
    cells = [cell(places, seed=seed) for seed in range(3)]
    run_session(cells[:1], executor())
    kept = result(cells[0])
    cells[0].result_path.write_text(json.dumps({**kept, "total_s": 100.0}))
    moments = iter([0.0, 30.0])
    # 30 s are over and a run takes 100: 2 minutes do not do, and nothing is begun.
    outcome = run_session(cells, executor(), max_minutes=2, now=lambda: next(moments))
    assert outcome.left == [cells[1].name, cells[2].name]
    assert "--max-minutes 2" in outcome.reason
    # The mean of both, about 50 s, does not fit after 140 s.
    moments = iter([0.0, 30.0, 140.0])
    assert run_session(cells, executor(), max_minutes=3, now=lambda: next(moments)).ended == [cells[1].name]


def test_seeds_come_one_after_the_other_and_what_was_begun_comes_first(places: Places) -> None:
    cells = [cell(places, arm, seed) for arm in ("grpo", "rapid") for seed in (0, 1)]
    assert [(one.arm, one.seed) for one in order_cells(cells)] == [("grpo", 0), ("rapid", 0), ("grpo", 1), ("rapid", 1)]
    state = read_state(cells[3].state_path)
    state.begin("begun")
    state.write(cells[3].state_path)
    assert order_cells(cells)[0].name == "task.rapid.1"


def test_a_killed_experiment_takes_its_run_with_it(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "0.2")
    one = cell(places, steps=500)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from tests.bench.test_session import cell, executor, Places, run_session\n"
        "run_session([cell(Places(Path(sys.argv[2]), Path(sys.argv[3])), steps=500)], executor())\n"
    )
    arguments = [sys.executable, "-c", script, str(ROOT), str(places.results), str(places.work)]
    experiment = subprocess.Popen(arguments, cwd=ROOT)
    metrics = one.run_dir / "metrics.jsonl"
    _wait_for(metrics.exists)
    os.kill(experiment.pid, signal.SIGKILL)
    experiment.wait()
    # The scripted run takes it for Ctrl-C, writes its checkpoint and ends.
    _wait_for(lambda: any(one.run_dir.glob("checkpoints/step-*/learner.json")))
    count = len(metrics.read_text().splitlines())
    time.sleep(0.5)
    assert len(metrics.read_text().splitlines()) == count < 500


def _wait_for(condition: Any, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
