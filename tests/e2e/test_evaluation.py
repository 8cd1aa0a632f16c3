"""Evaluation while a run goes on and afterwards: of the right weights, on prompts that are never trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rapid.recipe import load_recipe
from tasks import build_task
from telemetry.evaluations import read_evaluations
from telemetry.samples import read_samples
from tests.e2e.conftest import TINY, rapid

pytestmark = pytest.mark.slow

# The questions lie in one file, so that what holds some of them back is Rapid and not the task's author.
QUESTIONS = [{"question": f"count {index}", "answer": str(index % 10)} for index in range(60)]
SLOW = ("actors.engine=scripted", "actors.scripted.tokens_per_s=4000")
"""So that steps take long enough for evaluations to come between them."""


def evaluated_steps(run: Any) -> list[int]:
    return [record["eval"]["step"] for record in run.records() if record["eval"]]


def test_evaluations_come_in_with_their_version_and_their_prompts_are_never_trained_on(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    task = ("task.name=jsonl", f"task.path={path}", "task.eval.size=20", "task.eval.k=[1,4]", "task.eval.every=3")
    kept = ("telemetry.samples_every=1", "telemetry.samples_groups=8", "buffer.filter_zero_signal=false")
    # Steps of a second, so that the evaluator is not starved; and no end before it has come in, however late it is.
    slow = ("actors.engine=scripted", "actors.scripted.tokens_per_s=400")
    run = start("evaluated", *task, *kept, *slow, "schedule.steps=100000", "learner.checkpoint_every=100000")
    run.wait_until(lambda: bool(evaluated_steps(run)), "evaluation")
    run.wait_for_step(8)
    run.interrupt()
    assert run.finish() == 0, run.output()

    # Besides those of every third step only the last are due; and what a record tells is of steps before it.
    found, last = read_evaluations(run.folder), run.records()[-1]["step"]
    assert {one["step"] for one in found} <= {*range(0, last, 3), last}
    assert all(one["source"] == "training" and one["n_prompts"] == 20 and one["n_samples"] == 4 for one in found)
    walls = {record["step"]: record["wall_s"] for record in run.records()} | {0: 0.0}
    assert all(one["wall_s"] == walls[one["step"]] for one in found)
    told = [(record["step"], record["eval"]["step"]) for record in run.records() if record["eval"]]
    assert all(step >= of for step, of in told)
    assert set(evaluated_steps(run)) <= {one["step"] for one in found}

    # Twenty questions are held back: none of them is behind an entry of the ledger, nor in what was trained on.
    overrides = ["task.name=jsonl", f"task.path={path}", "task.eval.size=20"]
    config = load_recipe(Path(TINY), overrides).task
    held = {ask(prompt) for prompt in prompts_of(build_task(config, "eval"))}
    train = [ask(prompt) for prompt in prompts_of(build_task(config))]
    assert len(held) == 20
    assert held.isdisjoint(train)
    ledger = json.loads((run.folder / "ledger" / "state.json").read_text())["ledger"]
    assert ledger["num_prompts"] == len(train) == 40
    samples = read_samples(run.folder / "samples.jsonl")
    asked = {sample["entry"]: question_of(sample["prompt"]) for sample in samples}
    assert len(set(asked.values())) > 10
    assert all(question == train[int(entry.partition(":")[2])] for entry, question in asked.items())
    assert held.isdisjoint(asked.values())
    assert "adds up" in run.ledger()
    run.assert_left_nothing()


def ask(prompt: Any) -> str:
    return str(prompt.messages[-1]["content"])


def prompts_of(task: Any) -> list[Any]:
    return [task.prompt(index) for index in range(len(task))]


def question_of(text: str) -> str:
    """What is asked in a prompt as the chat template of the tiny model writes it."""
    return text.removeprefix("<|user|>").removesuffix("<|end|><|assistant|>")


def test_a_killed_evaluator_is_replaced_and_one_beyond_its_restarts_is_a_warning(start: Callable[..., Any]) -> None:
    run = start("lost", *SLOW, "schedule.steps=100000", "learner.checkpoint_every=100000", "task.eval.every=2",
                "actors.restarts=1")  # fmt: skip
    run.wait_until(lambda: bool(evaluated_steps(run)), "evaluation")
    run.parts("EvaluatorPart")[0].kill()
    run.wait_until(lambda: "eval-0 ended" in run.output() and "start 2" in run.output(), "replacement")
    before = run.records()[-1]["step"]
    run.wait_until(lambda: any(step > before for step in evaluated_steps(run)), "evaluation by the successor")
    run.parts("EvaluatorPart")[0].kill()
    run.wait_until(lambda: "no more evaluations after 2 starts" in run.output(), "warning")
    run.wait_for_step(run.records()[-1]["step"] + 5)
    assert {record["actors"] for record in run.records()} == {1}, "the evaluator is no actor"
    run.interrupt()
    assert run.finish() == 0, run.output()
    assert "adds up" in run.ledger()
    run.assert_left_nothing()


def test_the_end_does_not_wait_for_an_evaluator_that_is_gone(start: Callable[..., Any]) -> None:
    # Half a minute of steps, since the evaluator has to be there, and to be killed, before the last.
    slower = ("actors.engine=scripted", "actors.scripted.tokens_per_s=1000", "task.eval.end_wait_s=3600")
    run = start("alone", *slower, "schedule.steps=60", "task.eval.every=5", "actors.restarts=0")
    run.wait_until((run.folder / "logs" / "eval-0.log").exists, "evaluator")
    run.parts("EvaluatorPart")[0].kill()
    assert run.finish() == 0, run.output()
    assert run.records()[-1]["step"] == 60
    assert "no more evaluations" in run.output()


@pytest.mark.parametrize("mode", ["sync", "alternate"])
def test_it_works_where_actors_and_learner_take_turns(start: Callable[..., Any], mode: str) -> None:
    turns = ("schedule.broadcast_every=2",) if mode == "alternate" else ()
    run = start(mode, f"schedule.mode={mode}", *turns, *SLOW, "schedule.steps=8", "task.eval.every=4")
    assert run.finish() == 0, run.output()
    found = read_evaluations(run.folder)
    assert found[-1]["step"] == 8
    assert {one["step"] for one in found} <= {0, 4, 8}


def test_snapshots_are_evaluated_once_each_by_one_engine_and_training_shows(start: Callable[..., Any]) -> None:
    """With vLLM: the weights that it loads are those of the snapshots."""
    run = start("kept", "schedule.steps=30", "learner.snapshot_every=15", "task.eval.every=15", "task.eval.k=[1,4]")
    assert run.finish() == 0, run.output()
    in_training = read_evaluations(run.folder)
    assert in_training[-1]["step"] == 30
    assert in_training[-1]["mean_reward"] > 0.6
    run.assert_left_nothing()

    options = ("--snapshots", "--k", "1,2", "--prompts", "16", "--runs", str(run.folder.parent))
    said = rapid("eval", "kept", *options)
    assert said.returncode == 0, said.stderr
    assert "3 of 3 snapshots" in said.stdout
    found = read_evaluations(run.folder, lambda one: one["source"] == "snapshot")
    assert [one["step"] for one in found] == [0, 15, 30]
    rewards = [one["mean_reward"] for one in found]
    assert rewards[0] < 0.2 < rewards[1] < rewards[2]
    # The same weights by two ways, asked of other samples.
    assert rewards[2] == pytest.approx(in_training[-1]["mean_reward"], abs=0.15)
    assert found[2]["wall_s"] == run.records()[-1]["wall_s"]
    assert found[0]["wall_s"] == 0.0

    again = rapid("eval", "kept", *options)
    assert "0 of 3 snapshots" in again.stdout
    out = run.folder / "figures.json"
    one = rapid("eval", "kept", "--k", "1", "--samples", "2", "--json", str(out), "--runs", str(run.folder.parent))
    assert one.returncode == 0, one.stderr
    assert json.loads(out.read_text())["mean_reward"] > 0.6
    run.assert_left_nothing()
