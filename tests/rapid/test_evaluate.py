"""`rapid eval` before it starts anything, and the evaluator's process on a fake Ray."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from actors.evaluation.spec import EvalSpec
from rapid import evaluator
from rapid.config import RapidConfig
from rapid.errors import ConfigError, UsageError
from rapid.eval_table import print_evaluation, snapshot_line
from rapid.evaluate import Wishes, evaluate, evaluate_snapshots, make_spec, parse_ks
from rapid.evaluator import EvaluatorKeeper
from rapid.placement import CorePlan, plan_cores
from rapid.preflight import Plan
from rapid.recipe import check_config
from telemetry.run_dir import RunDirectory
from tests.telemetry.test_evaluations import make_evaluation

TINY = "recipes/tiny.toml"


def config(evaluation: dict[str, Any] | None, **sections: Any) -> RapidConfig:
    task = {"name": "tasks.examples.digits:Digits"} | ({} if evaluation is None else {"eval": evaluation})
    return check_config({"model": {"path": "tiny"}, "task": task, **sections}, "test")


# --- what is asked ----------------------------------------------------------------------------------


def test_the_command_line_goes_before_the_recipe_which_goes_before_the_default() -> None:
    recipe = config({"k": [1, 4], "samples": 16, "temperature": 0.5})
    assert make_spec(recipe, Wishes()) == EvalSpec((1, 4), 16, 0.5, True)
    assert make_spec(recipe, Wishes([2], 3, 5, False)) == EvalSpec((2,), 3, 0.5, False, 5)
    # More ks than the recipe has samples for are drawn for.
    assert make_spec(recipe, Wishes([32])).samples == 32
    assert make_spec(config({}, actors={"temperature": 0.9}), Wishes()) == EvalSpec((1, 8), 8, 0.9, True)


@pytest.mark.parametrize(
    ("wishes", "said"),
    [(Wishes([8], samples=4), "--samples 4: expected at least 8"), (Wishes(samples=4), "expected at least 8")],
)
def test_fewer_samples_than_k_are_refused(wishes: Wishes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_spec(config({}), wishes)


def test_a_recipe_without_evaluation_prompts_is_refused() -> None:
    with pytest.raises(UsageError, match=r"task.eval is missing"):
        make_spec(config(None), Wishes())


@pytest.mark.parametrize("text", ["0,1", "one", "", "-1"])
def test_values_of_k_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected whole numbers from 1"):
        parse_ks(text)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"k": [0, 1]}, "k is \\[0, 1\\]; expected whole numbers from 1"),
        ({"k": [1, 8], "samples": 4}, "pass@8 needs at least 8"),
        ({"every": 0}, "task.eval.every"),
    ],
)
def test_a_section_that_cannot_work_is_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(section)


def test_an_evaluator_cannot_take_part_in_transfers_that_all_receivers_make_together() -> None:
    with pytest.raises(ConfigError, match=r"task.eval.every = 5 with weights.transport = .nccl.*snapshot_every"):
        config({"every": 5}, weights={"transport": "nccl"})
    config({}, weights={"transport": "nccl"})


def ask(target: str, runs: Path, *, checkpoint: Path | None = None, snapshots: bool = False, **options: Any) -> None:
    wishes = options.pop("wishes", Wishes())
    overrides = options.pop("overrides", [])
    evaluate(
        target, runs, overrides, wishes, checkpoint=checkpoint, snapshots=snapshots, json_file=options.get("json_file")
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "trial")
    run.write_config(config({"size": 4}).model_dump(mode="json"))
    return run


def test_what_cannot_be_evaluated_is_refused_before_an_engine_starts(run_dir: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--snapshots with recipes/tiny.toml: expected a run"):
        ask(TINY, tmp_path, snapshots=True)
    with pytest.raises(UsageError, match=r"runs in .*: trial"):
        ask("missing", tmp_path)
    with pytest.raises(UsageError, match=r"has no snapshots: set learner.snapshot_every"):
        ask("trial", tmp_path, snapshots=True)
    with pytest.raises(UsageError, match="holds no checkpoint"):
        ask("trial", tmp_path)
    with pytest.raises(UsageError, match=r"--checkpoint .*: expected a checkpoint's or snapshot's folder"):
        ask("trial", tmp_path, checkpoint=tmp_path)
    with pytest.raises(UsageError, match=r"--json .*: there is no folder"):
        ask(TINY, tmp_path, json_file=tmp_path / "no" / "x.json")
    with pytest.raises(UsageError, match="has no snapshots"):
        evaluate_snapshots(run_dir.path, ks=[1])


RECORDS = Path(__file__).resolve().parents[1] / "tasks" / "data" / "gsm8k.jsonl"
HELD_BACK = {"name": "jsonl", "path": str(RECORDS), "answer_pattern": "#### (.+)"}


@pytest.mark.parametrize(
    "override", ["size=3", "seed=5", f"path={RECORDS}", "split=test", "subset=main", f"../path={RECORDS}.gz"]
)
def test_a_run_is_not_asked_records_that_it_was_trained_on(tmp_path: Path, override: str) -> None:
    run = RunDirectory.create(tmp_path / "trial")
    sections = {"model": {"path": "tiny"}, "task": HELD_BACK | {"split_field": "question", "eval": {"size": 2}}}
    run.write_config(check_config(sections, "test").model_dump(mode="json"))
    name = f"task.eval.{override}".replace("eval.../", "")
    with pytest.raises(UsageError, match=r"--set task\.\S+: it decides which records.*--prompts N"):
        ask("trial", tmp_path, overrides=[name])
    with pytest.raises(UsageError, match="holds no checkpoint"):
        ask("trial", tmp_path, overrides=["task.eval.greedy=false"])


def test_a_run_without_evaluation_prompts_cannot_be_given_some_of_its_training_records(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "trial")
    run.write_config(check_config({"model": {"path": "tiny"}, "task": HELD_BACK}, "test").model_dump(mode="json"))
    with pytest.raises(UsageError, match=r"--set task.eval.size: it decides"):
        ask("trial", tmp_path, overrides=["task.eval={size=2}"])


def test_the_table_has_a_column_for_each_difficulty_and_tells_what_was_not_judged() -> None:
    scores = make_evaluation(0, mean=0.25)
    levels = {"easy": {**{key: scores[key] for key in ("pass_at", "mean_reward")}, "greedy": None, "n_prompts": 7}}
    console = Console(record=True, width=120, file=io.StringIO())
    found = {**scores, "model": "m", "by_difficulty": levels, "unjudged": 3, "unjudged_reason": "timed out"}
    print_evaluation(console, found)
    text = console.export_text()
    assert "easy (7)" in text
    assert text.count("0.250 [0.150, 0.350]") == 5
    assert "3 completions could not be judged and are left out: timed out" in text
    assert "3 not judged" in snapshot_line(found)
    json.dumps(found)


# --- the evaluator's process ------------------------------------------------------------------------


def test_cores_set_aside_are_the_evaluators_alone() -> None:
    own = plan_cores(config({"every": 2, "threads": 1}, learner={"threads": 1}), [0, 1, 2, 3])
    assert (own.evaluator, own.actors, own.learner) == ([0], [[1, 2]], [[3]])
    # Whoever asks for all of them leaves one to train.
    greedy = plan_cores(config({"every": 2, "threads": 8}), [0, 1])
    assert (greedy.evaluator, greedy.actors, greedy.learner) == ([0], [[1]], [[1]])
    assert plan_cores(config({"every": 2, "threads": 1}), [5]).evaluator == [5]


def test_without_cores_of_its_own_it_shares_those_of_the_actors_and_never_the_learners() -> None:
    shared = plan_cores(config({"every": 2}, learner={"threads": 1}, actors={"count": 2}), [0, 1, 2])
    assert (shared.evaluator, shared.actors, shared.learner) == ([0, 1], [[0], [1]], [[2]])
    # Cores are set aside only for evaluations while the run goes on.
    assert plan_cores(config({"threads": 1}, learner={"threads": 1}), [0, 1]).actors == [[0]]


class FakeRay:
    """Ray as the keeper sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.ends = True
        part = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._make))
        monkeypatch.setattr(evaluator, "EvaluatorPart", part)
        monkeypatch.setattr(evaluator, "outcome", lambda task: "its process died")
        monkeypatch.setattr(evaluator.ray, "kill", lambda handle: self.calls.append("kill"))
        monkeypatch.setattr(evaluator.ray, "wait", lambda found, timeout: (found if self.ends else [], []))

    def _make(self, name: str, *_: Any) -> Any:
        self.calls.append(f"start {name}")
        return SimpleNamespace(
            run=SimpleNamespace(remote=lambda settings: f"task {len(self.calls)}"),
            stop=SimpleNamespace(remote=lambda: self.calls.append("stop")),
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    plan = Plan(config({"every": 2}, actors={"restarts": 1}), "run", Path("run"), Path("model"), 10, None)
    found = SimpleNamespace(ray=FakeRay(monkeypatch), told=[], now=0.0)
    cores = CorePlan([None], [None])
    found.keeper = EvaluatorKeeper(plan, cores, {}, "tcp://127.0.0.1:1", found.told.append, clock=lambda: found.now)
    return found


def test_a_dead_evaluator_is_started_anew_and_then_given_up_with_a_warning(world: Any) -> None:
    assert (world.keeper.tasks(), world.keeper.is_gone) == ([], False)
    world.keeper.start()
    world.keeper.ended()
    assert (len(world.keeper.tasks()), world.keeper.is_gone) == (1, False)
    world.keeper.ended()
    assert world.told == [
        "eval-0 ended (its process died); starting it anew, start 2",
        "eval-0 ended (its process died); no more evaluations after 2 starts, training goes on",
    ]
    assert (world.keeper.tasks(), world.keeper.is_gone) == ([], True)
    world.keeper.stop(1.0)
    assert world.ray.calls == ["start eval-0", "start eval-0"]


def test_one_that_lived_long_may_be_restarted_as_often_as_a_new_one(world: Any) -> None:
    world.keeper.start()
    for _ in range(5):
        world.now += 700.0
        world.keeper.ended()
    assert not world.keeper.is_gone


@pytest.mark.parametrize(("ends", "calls"), [(True, ["stop"]), (False, ["stop", "kill"])])
def test_one_that_does_not_end_is_ended(world: Any, ends: bool, calls: list[str]) -> None:
    world.ray.ends = ends
    world.keeper.start()
    world.keeper.stop(1.0)
    assert world.ray.calls == ["start eval-0", *calls]
