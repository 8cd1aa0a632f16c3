"""`rapid eval`: the evaluation prompts asked of a recipe's model, of a checkpoint, or of all snapshots of a run."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.evaluation.snapshot_file import SnapshotFileError, read_snapshot
from actors.evaluation.spec import EvalSpec
from actors.snapshots import SnapshotStore
from learner.checkpoint import ResumeError, newest_checkpoint
from learner.snapshots import WEIGHTS_NAME, list_snapshots
from protocol.version import PolicyVersion
from rapid.config import RapidConfig
from rapid.errors import UsageError
from rapid.eval_session import EvalSession, open_session
from rapid.eval_table import print_evaluation, snapshot_line
from rapid.inspection import open_run
from rapid.preflight import differing_lot, load_checked_task, load_model
from rapid.recipe import apply_overrides, check_config, load_recipe
from tasks import Task
from telemetry.errors import RunDirectoryError
from telemetry.evaluations import (
    EVALUATIONS_NAME,
    Evaluation,
    append_evaluation,
    read_evaluations,
    wall_s_of,
)
from telemetry.run_dir import RunDirectory


@dataclass(frozen=True)
class Wishes:
    """What the command line says of how to ask; None leaves it to `[task.eval]`."""

    ks: list[int] | None = None
    samples: int | None = None
    prompts: int | None = None
    greedy: bool | None = None


def parse_ks(text: str) -> list[int]:
    """Values of k from "1,8". Raises UsageError."""
    try:
        ks = sorted({int(part) for part in text.split(",")})
    except ValueError:
        ks = []
    if not ks or ks[0] < 1:
        raise UsageError(f"--k {text!r}: expected whole numbers from 1, such as 1,8")
    return ks


def make_spec(config: RapidConfig, wishes: Wishes) -> EvalSpec:
    """How to ask. Raises UsageError for fewer samples than the largest k, or a recipe without evaluation prompts."""
    section = config.task.eval
    if section is None:
        raise UsageError("task.eval is missing; expected the section [task.eval], for example with size = 100")
    spec = EvalSpec.of(section, config.actors.temperature)
    ks = tuple(wishes.ks or spec.ks)
    # Another list of k asks for as many samples as it needs, unless the recipe says more.
    samples = wishes.samples or (max(ks[-1], section.samples or 0))
    if samples < ks[-1]:
        raise UsageError(f"--samples {samples}: expected at least {ks[-1]}, for pass@{ks[-1]} needs so many")
    greedy = spec.greedy if wishes.greedy is None else wishes.greedy
    return EvalSpec(ks, samples, spec.temperature, greedy, wishes.prompts)


def evaluate(
    target: str,
    runs: Path,
    overrides: list[str],
    wishes: Wishes,
    *,
    checkpoint: Path | None,
    snapshots: bool,
    json_file: Path | None,
) -> None:
    """Evaluate and print. `target` is a recipe's file, or a run's name or folder. Raises UsageError."""
    is_recipe = target.endswith(".toml")
    if snapshots and (is_recipe or checkpoint is not None):
        raise UsageError(f"--snapshots with {target}: expected a run's name alone, whose snapshots there are")
    _check_writable(json_file)
    if is_recipe:
        config = load_recipe(Path(target), overrides)
        found: Any = _evaluate_one(config, make_spec(config, wishes), checkpoint)
    else:
        run = open_run(target, runs)
        config = _run_config(run, overrides)
        spec = make_spec(config, wishes)
        found = (
            _evaluate_snapshots(run, config, spec)
            if snapshots
            else _evaluate_one(config, spec, checkpoint or _newest_checkpoint(run))
        )
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")


def _check_writable(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"--json {path}: there is no folder {path.parent}; name a file in a folder that exists")


def _run_config(run: RunDirectory, overrides: list[str]) -> RapidConfig:
    try:
        values = run.read_config()
    except RunDirectoryError as error:
        raise UsageError(str(error)) from None
    place = str(run.path / "config.json")
    trained = check_config(values, place)
    apply_overrides(values, overrides)
    config = check_config(values, place)
    if name := differing_lot(trained.task.lot, config.task.lot):
        raise UsageError(
            f"--set {name}: it decides which records run {run.name!r} held back, so that with another value it would "
            "be asked what it was trained on; expected none of it. For fewer prompts take --prompts N; for other "
            "records, a recipe with them in task.eval.path: rapid eval RECIPE --checkpoint FOLDER"
        )
    return config


def _newest_checkpoint(run: RunDirectory) -> Path:
    try:
        return newest_checkpoint(run.path)
    except ResumeError as error:
        raise UsageError(str(error)) from None


def _evaluate_one(config: RapidConfig, spec: EvalSpec, checkpoint: Path | None) -> dict[str, Any]:
    """The model of the recipe, or a checkpoint of it. Raises UsageError, EngineError."""
    task = _load_prompts(config)
    model_dir = load_model(config) if checkpoint is None else _checkpoint_model(checkpoint)

    async def ask() -> dict[str, Any]:
        async with open_session(config, task, spec, model_dir, PolicyVersion(1, 0)) as session:
            return await session.evaluate("evaluating")

    found = {"model": str(model_dir), **asyncio.run(ask())}
    print_evaluation(Console(highlight=False), found)
    return found


def _load_prompts(config: RapidConfig) -> Task:
    """The evaluation prompts; what whoever asks them should know is printed. Raises UsageError."""
    task, notes = load_checked_task(config, "eval")
    for note in notes:
        print(f"rapid: {note}", file=sys.stderr)
    return task


def _checkpoint_model(checkpoint: Path) -> Path:
    for folder in (checkpoint / "model", checkpoint):
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(
        f"--checkpoint {checkpoint}: expected a checkpoint's or snapshot's folder, such as "
        "runs/NAME/checkpoints/step-000040"
    )


# --- snapshots --------------------------------------------------------------------------------------


def evaluate_snapshots(
    run_dir: Path, ks: list[int] | None = None, samples: int | None = None, prompts: int | None = None
) -> list[Evaluation]:
    """Evaluate all snapshots of a run that have not been evaluated yet, and append them to its eval.jsonl.

    Args:
        run_dir: the run's folder.
        ks: values of k; None takes those of `[task.eval]`, as with the others.
        samples: completions of each prompt.
        prompts: only the first evaluation prompts, so many; None takes all.

    Returns:
        All evaluations of the run that were made in this way, one a step, by step: telemetry.evaluations lists their
        keys.

    Raises:
        UsageError: no run, no snapshots, or no evaluation prompts.
        EngineError: the engine did not start, or died; what was evaluated until then is kept.
    """
    run = open_run(str(run_dir), run_dir.parent)
    config = _run_config(run, [])
    return _evaluate_snapshots(run, config, make_spec(config, Wishes(ks, samples, prompts)))


def _evaluate_snapshots(run: RunDirectory, config: RapidConfig, spec: EvalSpec) -> list[Evaluation]:
    snapshots = list_snapshots(run.path)
    if not snapshots:
        raise UsageError(
            f"run {run.name!r} has no snapshots: set learner.snapshot_every when it is trained, or evaluate a "
            "checkpoint with --checkpoint"
        )
    task = _load_prompts(config)
    num_prompts = min(len(task), spec.prompts or len(task))

    def read_same() -> list[Evaluation]:
        return read_evaluations(run.path, lambda one: _is_same(one, spec, num_prompts))

    done = {(one["incarnation"], one["step"]) for one in read_same()}
    waiting = [(version, path) for version, path in snapshots if (version.incarnation, version.step) not in done]
    console = Console(highlight=False)
    console.print(f"{len(waiting)} of {len(snapshots)} snapshots of {run.name} to evaluate, {num_prompts} prompts each")
    if waiting:
        asyncio.run(_evaluate_all(run, config, task, spec, waiting, console))
    return read_same()


def _is_same(evaluation: Evaluation, spec: EvalSpec, num_prompts: int) -> bool:
    """Whether this one tells all that is asked for now, in the same way."""
    asked = (num_prompts, spec.samples, spec.temperature)
    has_ks = {str(k) for k in spec.ks} <= evaluation["pass_at"].keys()
    has_greedy = not spec.greedy or evaluation.get("greedy") is not None
    return (
        tuple(evaluation.get(key) for key in ("n_prompts", "n_samples", "temperature")) == asked
        and has_ks
        and has_greedy
    )


async def _evaluate_all(
    run: RunDirectory,
    config: RapidConfig,
    task: Task,
    spec: EvalSpec,
    waiting: list[tuple[PolicyVersion, Path]],
    console: Console,
) -> None:
    history, (first, folder) = run.read_history(), waiting[0]
    store = SnapshotStore("eval")
    try:
        async with open_session(config, task, spec, folder, first) as session:
            for version, path in waiting:
                if version != first:
                    await _load(session, path, version, store)
                found = await session.evaluate(f"step {version.step}")
                evaluation = {
                    "step": version.step,
                    "incarnation": version.incarnation,
                    "wall_s": wall_s_of(history, version.incarnation, version.step),
                    **found,
                    "source": "snapshot",
                }
                append_evaluation(run.path, evaluation)
                console.print(snapshot_line(evaluation), soft_wrap=True)
    finally:
        store.close()
    console.print(f"wrote {run.path / EVALUATIONS_NAME}")


async def _load(session: EvalSession, path: Path, version: PolicyVersion, store: SnapshotStore) -> None:
    try:
        snapshot = await asyncio.to_thread(read_snapshot, path / WEIGHTS_NAME, version, store)
    except SnapshotFileError as error:
        raise UsageError(f"{error}; remove that snapshot to evaluate the others") from None
    assert snapshot.path is not None
    try:
        await session.engine.load_weights(snapshot)
    finally:
        store.give_back(snapshot.path)
