"""A plan with its files: which runs there are, how far they are, running them, reporting on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.table import tune
from bench.table.arms import expand, nearest
from bench.table.asked import check_results, matching
from bench.table.cell import LOCKS, RAPID, Cell, Places
from bench.table.collect import ROOT
from bench.table.draw import draw_all
from bench.table.execute import Executor
from bench.table.plan import Plan, check_fairness, make_cell, read_plan
from bench.table.session import Outcome, run_session
from bench.table.summary import summarise
from bench.table.teach import TeachError, read_task, taught_folder, teach
from bench.table.text import render
from rapid.errors import UsageError
from rapid.models import default_cache
from tasks.config import TaskConfig
from telemetry.run_dir import write_atomically


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
    places: Places
    """Of the plan's runs, those of the search not among them."""
    is_tuning: bool

    @classmethod
    def read(
        cls, path: Path, results: Path, work: Path, selection: Selection, *, is_tuning: bool = False
    ) -> Experiment:
        """Read and check everything. Raises UsageError before anything is started."""
        plan = read_plan(path)
        places = Places(results / plan.name, work.absolute() / plan.name)
        # Of the whole plan: what is not selected now will be in the same table.
        check_fairness(_cells(plan, places, Selection(seeds=list(plan.seeds[:1]))))
        cells = (_trials if is_tuning else _cells)(plan, places, selection)
        return cls(plan, tuple(cells), places, is_tuning)

    def run(self, max_minutes: float | None, is_interrupted: Callable[[], bool], program: Sequence[str] = RAPID) -> int:
        """Run what is left, then report. 0 when nothing failed, else 1. Raises UsageError before anything starts."""
        if self.plan.learning_rates is not None and not self.is_tuning:
            arms = list(dict.fromkeys(cell.arm for cell in self.cells))
            tune.require_search(_trials(self.plan, self.places, Selection(arms=arms)))
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
                    teach(entry.teach, _task_of(self.plan, name), default_cache(), _say)
                except TeachError as error:
                    raise UsageError(f"task {name}: {error}") from None

    def report(self) -> str:
        """The tables of all that the plan asks for, also written beside the results, with the pictures."""
        from filelock import FileLock

        folder, window = self.places.results, self.plan.evaluation.smooth
        results, others = matching((_trials if self.is_tuning else _cells)(self.plan, self.places, Selection()))
        left_out = "".join(f"\n- left out: {other}" for other in others)
        if not results:
            return f"no run of {self.plan.name} has ended yet{left_out}"
        lock = self.places.work / LOCKS / ".report"
        lock.parent.mkdir(parents=True, exist_ok=True)
        # Another session may be writing the same files.
        with FileLock(lock):
            if self.is_tuning:
                text = tune.render(results, window)
                write_atomically(folder / "tune.json", text + "\n")
                return text + left_out
            tables = summarise(results, arms=self.plan.arm_names, baseline=self.plan.baseline, window=window)
            legend = {arm: self.plan.arm(arm).what for arm in self.plan.arm_names}
            text = f"# {self.plan.name}\n\n{render(tables, legend)}{left_out}"
            write_atomically(folder / "table.md", text)
            draw_all(tables, folder, window)
        return text

    def listing(self) -> str:
        """A line for each run."""
        lines = []
        for cell in self.cells:
            begun = "begun" if cell.state_path.exists() else "to do"
            lines.append(f"{'done ' if cell.result_path.exists() else begun}  {cell.name}")
        return "\n".join(lines)


def _cells(plan: Plan, places: Places, selection: Selection) -> list[Cell]:
    tasks, arms, seeds = _select(plan, selection)
    found = _found_rates(plan, places) if plan.learning_rates else {}
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


def _found_rates(plan: Plan, places: Places) -> dict[str, float]:
    """The learning rate by arm, of the trials that the plan asks for."""
    results, _ = matching(_trials(plan, places, Selection()))
    return tune.choose(results, plan.evaluation.smooth)


def _trials(plan: Plan, places: Places, selection: Selection) -> list[Cell]:
    """Runs of the search for learning rates; their arm's name holds the rate."""
    rates = plan.learning_rates
    places = Places(places.results / tune.FOLDER, places.work / tune.FOLDER)
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
    return str(taught_folder(entry.teach, _task_of(plan, task), default_cache()))


def _task_of(plan: Plan, name: str) -> TaskConfig:
    """The task as the runs have it, which is what is taught."""
    entry = plan.tasks[name]
    return read_task(str(ROOT / entry.recipe), {**plan.set, **entry.set})


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
    return list(dict.fromkeys(wanted)) if wanted is not None else known


def _account(outcome: Outcome) -> str:
    """What the session did."""
    lines = [f"{len(outcome.ended)} runs ended now, {len(outcome.failed)} failed, {len(outcome.left)} are left"]
    lines += [f"  {name}: {reason}" for name, reason in outcome.failed.items()]
    lines += [f"  {name}: another session is at it" for name in outcome.elsewhere]
    return "\n".join([*lines, outcome.reason] if outcome.reason else lines)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}" if "\n" not in text else text, flush=True)
