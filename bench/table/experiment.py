"""A plan with its files: which runs there are, how far they are, running them, reporting on them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.table import tune
from bench.table.arms import expand, nearest
from bench.table.cell import RAPID, Cell, Places
from bench.table.collect import ROOT, without_machine
from bench.table.draw import draw_all
from bench.table.execute import Executor
from bench.table.plan import Plan, check_fairness, make_cell, read_plan, resolve
from bench.table.session import Outcome, run_session
from bench.table.summary import load_results, summarise
from bench.table.teach import TeachError, read_task, taught_folder, teach
from bench.table.text import render
from rapid.errors import UsageError
from rapid.models import default_cache
from telemetry.run_dir import write_atomically

# Overrides that say where things lie, and nothing about what is run.
OF_THE_MACHINE = {"run.directory", "model.path"}


@dataclass(frozen=True)
class Selection:
    """Which part of a plan is meant; None is all."""

    tasks: list[str] | None = None
    arms: list[str] | None = None
    seeds: list[int] | None = None


@dataclass(frozen=True)
class Experiment:
    """A plan, checked, and the runs of it that are meant."""

    plan: Plan
    cells: tuple[Cell, ...]
    folder: Path
    """Of the plan's results."""
    is_tuning: bool

    @classmethod
    def read(
        cls, path: Path, results: Path, work: Path, selection: Selection, *, is_tuning: bool = False
    ) -> Experiment:
        """Read and check everything. Raises UsageError before anything is started."""
        plan = read_plan(path)
        folder = results / plan.name
        if is_tuning:
            places = Places(folder / tune.FOLDER, work.absolute() / plan.name / tune.FOLDER)
            cells = _trials(plan, places, selection)
        else:
            cells = _cells(plan, Places(folder, work.absolute() / plan.name), selection)
        check_fairness(cells)
        return cls(plan, tuple(cells), folder, is_tuning)

    def run(self, max_minutes: float | None, is_interrupted: Callable[[], bool], program: Sequence[str] = RAPID) -> int:
        """Run what is left, then report. 0 when nothing failed, else 1. Raises UsageError before anything starts."""
        if self.plan.learning_rates is not None:
            tune.require_rates(self.cells)
        check_results(self.cells)
        self._teach()
        executor = Executor(_say, is_interrupted, program)
        outcome = run_session(self.cells, executor, max_minutes=max_minutes)
        _say(self.report())
        _say(_account(outcome))
        return 1 if outcome.failed else 0

    def _teach(self) -> None:
        for name in dict.fromkeys(cell.task for cell in self.cells):
            entry = self.plan.tasks[name]
            if entry.teach is not None:
                try:
                    teach(entry.teach, read_task(str(ROOT / entry.recipe), entry.set), default_cache(), _say)
                except TeachError as error:
                    raise UsageError(f"task {name}: {error}") from None

    def report(self) -> str:
        """The tables, also written beside the results, with the pictures."""
        window = self.plan.evaluation.smooth
        if self.is_tuning:
            text = tune.render(load_results(self.folder / tune.FOLDER), window)
            if self.folder.exists():
                write_atomically(self.folder / "tune.json", text + "\n")
            return text
        results = [result for result in load_results(self.folder) if self._is_asked_for(result)]
        tables = summarise(results, arms=self.plan.arm_names, baseline=self.plan.baseline, window=window)
        if not tables:
            return f"no run of {self.plan.name} has ended yet"
        text = f"# {self.plan.name}\n\n" + render(tables, {arm: self.plan.arm(arm).what for arm in self.plan.arm_names})
        write_atomically(self.folder / "table.md", text)
        draw_all(tables, self.folder, window)
        return text

    def _is_asked_for(self, result: dict[str, Any]) -> bool:
        return result["task"] in self.plan.tasks and result["seed"] in self.plan.seeds

    def listing(self) -> str:
        """A line for each run."""
        lines = []
        for cell in self.cells:
            begun = "begun" if cell.state_path.exists() else "to do"
            lines.append(f"{'done ' if cell.result_path.exists() else begun}  {cell.name}")
        return "\n".join(lines)


def check_results(cells: Sequence[Cell]) -> None:
    """Raises UsageError where a result was made by another plan of this name, or by another recipe: it would count as
    one of this."""
    for cell in cells:
        if not cell.result_path.exists():
            continue
        result = json.loads(cell.result_path.read_text(encoding="utf-8"))
        before, now = result["overrides"], json.loads(json.dumps(cell.overrides))
        _refuse_difference(cell, before, now, before.keys() | now.keys())
        # A field that came or went since was not there to be chosen.
        before, now = _fields(result["config"]), _fields(_config(cell))
        _refuse_difference(cell, before, now, before.keys() & now.keys())


def _refuse_difference(cell: Cell, before: dict[str, Any], now: dict[str, Any], keys: Iterable[str]) -> None:
    for key in sorted(set(keys) - OF_THE_MACHINE):
        if before.get(key) != now.get(key):
            raise UsageError(
                f"{cell.result_path} was run with {key} = {before.get(key)!r}, now {now.get(key)!r}: give the "
                "plan another name, or delete the results of the old one"
            )


def _config(cell: Cell) -> dict[str, Any]:
    """What `rapid train` would resolve now, as a result tells it."""
    config = resolve(cell.recipe, cell.overrides, f"{cell.task}, arm {cell.arm}")
    found: dict[str, Any] = without_machine(config.model_dump(mode="json"), {})
    return found


def _fields(config: dict[str, Any]) -> dict[str, Any]:
    """Fields by "section.key", of the sections that say what is learned and how."""
    return {
        f"{section}.{key}": value
        for section in ("model", "task", "actors", "schedule", "buffer", "learner", "algorithm")
        for key, value in config.get(section, {}).items()
    }


def _cells(plan: Plan, places: Places, selection: Selection) -> list[Cell]:
    tasks, arms, seeds = _select(plan, selection)
    found = tune.found_rates(places.results, plan.evaluation.smooth) if plan.learning_rates else {}
    return [
        make_cell(
            plan,
            places,
            task,
            arm,
            seed,
            model=_taught_model(plan, task),
            lr=tune.rate_for(_searched(plan, arm), found) if plan.learning_rates else None,
            root=ROOT,
        )
        for seed in seeds
        for task in tasks
        for arm in arms
    ]


def _trials(plan: Plan, places: Places, selection: Selection) -> list[Cell]:
    """Runs of the search for learning rates; their arm's name holds the rate."""
    rates = plan.learning_rates
    if rates is None:
        raise UsageError("--tune: the plan has no [learning_rates]; add values and a task")
    _, arms, _ = _select(plan, selection)
    cells = []
    for arm in tune.families([_searched(plan, arm) for arm in arms]):
        for lr in rates.values:
            model = _taught_model(plan, rates.task)
            cell = make_cell(plan, places, rates.task, arm, rates.seed, model=model, lr=lr, is_trial=True, root=ROOT)
            cells.append(cell.named(tune.arm_and_rate(arm, lr)))
    return cells


def _searched(plan: Plan, arm: str) -> str:
    """The arm whose search decides on this one's learning rate."""
    return plan.baseline if plan.learning_rates is not None and plan.learning_rates.of_baseline else arm


def _taught_model(plan: Plan, task: str) -> str | None:
    entry = plan.tasks[task]
    if entry.teach is None:
        return None
    return str(taught_folder(entry.teach, read_task(str(ROOT / entry.recipe), entry.set), default_cache()))


def _select(plan: Plan, selection: Selection) -> tuple[list[str], list[str], list[int]]:
    tasks = _chosen("--tasks", selection.tasks, list(plan.tasks))
    arms = _chosen("--arms", expand(selection.arms) if selection.arms else None, plan.arm_names)
    seeds = [int(seed) for seed in _chosen("--seeds", _texts(selection.seeds), list(map(str, plan.seeds)))]
    return tasks, arms, seeds


def _texts(values: list[int] | None) -> list[str] | None:
    return None if values is None else [str(value) for value in values]


def _chosen(option: str, wanted: list[str] | None, known: list[str]) -> list[str]:
    for name in wanted or ():
        if name not in known:
            raise UsageError(f"{option} {name}: the plan has none of that name; {nearest(name, known)}")
    return wanted if wanted is not None else known


def _account(outcome: Outcome) -> str:
    """What the session did."""
    lines = [f"{len(outcome.ended)} runs ended now, {len(outcome.failed)} failed, {len(outcome.left)} are left"]
    lines += [f"  {name}: {reason}" for name, reason in outcome.failed.items()]
    return "\n".join([*lines, outcome.reason] if outcome.reason else lines)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}" if "\n" not in text else text, flush=True)
