"""What an experiment runs: a TOML file, read and checked against its recipes before anything starts.

The rules that make a comparison fair are checked here: all arms of a task share model, task, actors and learner with
all their fields but the learning rate, and what carries the weights; an arm that says otherwise is refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticUndefined

from bench.table.arms import ARMS, SETS, Arm, expand, nearest
from bench.table.cell import Cell, Places, to_toml
from bench.table.teach import TeachSpec
from learner.config import AlgorithmConfig
from protocol.config import ScheduleConfig, Section, derived_staleness
from rapid.config import RapidConfig
from rapid.errors import ConfigError, UsageError
from rapid.recipe import load_recipe

ENDLESS_STEPS = 1_000_000
"""`schedule.steps` of a run that ends by its wall time."""
# Sections and fields that are the same in all arms of a task.
SHARED = ("model", "task", "learner", "actors", "weights", "run")


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""Of a plan, a task or an arm: it becomes part of a folder's name and of a run's."""


class Budget(Section):
    """When a run ends. Exactly one of both."""

    samples: int | None = Field(None, ge=1)
    """Completions trained on; a multiple of those of an optimizer step."""
    wall_s: float | None = Field(None, gt=0)
    """Seconds of training, since the first actor was ready, after which a run is told to end. The step under way then
    counts."""

    @model_validator(mode="after")
    def _check(self) -> Budget:
        if (self.samples is None) == (self.wall_s is None):
            raise ValueError(
                f"budget.samples is {self.samples} and budget.wall_s {self.wall_s}: expected exactly one of them"
            )
        return self


class Evaluation(Section):
    """The held-out curve."""

    every_steps: int = Field(5, ge=1)
    """Optimizer steps between two snapshots."""
    size: int = Field(100, ge=1)
    """Evaluation prompts."""
    seed: int | None = Field(None, ge=0, lt=2**32)
    """`task.eval.seed` of the experiment's runs, so that they are measured on prompts by which nothing was chosen. The
    search for learning rates keeps those of the recipe. None: those of the recipe for all."""
    k: tuple[int, ...] = (1, 8)
    """Values of k for pass@k; the largest is the number of completions of a prompt."""
    smooth: int = Field(3, ge=1)
    """Evaluations in the trailing mean that smooths a curve."""

    @model_validator(mode="after")
    def _check(self) -> Evaluation:
        if 1 not in self.k or min(self.k) < 1 or sorted(set(self.k)) != list(self.k):
            raise ValueError(f"evaluation.k is {list(self.k)}: expected ascending numbers from 1, such as [1, 8]")
        return self


class TaskEntry(Section):
    """One task of the experiment."""

    recipe: str
    """Path of the recipe, from the repository's root."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Overrides for all arms on this task, "section.key"; they go before those of the plan."""
    budget: Budget | None = None
    """When a run on this task ends. None: as on the others."""
    every_steps: int | None = Field(None, ge=1)
    """Optimizer steps between two snapshots on this task. None: as on the others."""
    teach: TeachSpec | None = None
    """The tiny model that is taught the task first and then takes the place of `model.path`. None keeps that of the
    recipe."""


class CustomArm(Section):
    """An arm that the plan itself describes."""

    base: str | None = None
    """A shipped arm whose overrides come first. None begins with none."""
    what: str = ""
    """One sentence for the legend."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Overrides, "section.key"."""
    samples: int | None = Field(None, ge=1)
    """Completions that it trains on, in place of the budget's: an arm whose completions cost less time may go on for as
    long as the baseline takes. None: as the others."""


class LearningRates(Section):
    """The search for a learning rate, the same for every arm, or for the baseline alone."""

    values: tuple[float, ...] = Field(min_length=2)
    """Learning rates that are tried."""
    task: str
    """The one task it is done on."""
    seed: int = 1000
    """The one seed, which is none of those of the experiment."""
    of_baseline: bool = False
    """Whether the search is for the baseline alone, and all arms train at what is best for it."""


class Plan(Section):
    """A whole experiment."""

    name: Name
    """Name of its folder of results; the file's own."""
    arms: tuple[str, ...] = Field(min_length=1)
    """Names of arms, or of sets of them: "main", "methods", "ablations", "staleness"."""
    baseline: str = "grpo"
    """The arm whose time is 1, and whose last accuracy is "equal accuracy"."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """`run.seed` of the runs."""
    budget: Budget
    """When a run ends, unless its task says otherwise."""
    evaluation: Evaluation = Evaluation()
    """The held-out curve."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Overrides for all tasks and arms, "section.key"."""
    tasks: dict[Name, TaskEntry] = Field(min_length=1)
    """The tasks by name."""
    custom: dict[Name, CustomArm] = Field(default_factory=dict)
    """Arms of the plan's own."""
    learning_rates: LearningRates | None = None
    """The search that `--tune` does. None trains every arm with the recipe's learning rate."""

    @model_validator(mode="after")
    def _check(self) -> Plan:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {list(self.seeds)}: expected each once")
        known = [*ARMS, *SETS, *self.custom]
        bases = [custom.base for custom in self.custom.values() if custom.base is not None]
        for name in (*self.arms, self.baseline, *bases):
            if name not in known:
                raise ValueError(f"arm {name!r} is not known; {nearest(name, known)}")
        for name in self.custom:
            if name in ARMS or name in SETS:
                raise ValueError(f"custom.{name}: there is an arm of that name; choose another")
        if self.baseline not in expand(list(self.arms)):
            raise ValueError(f"baseline is {self.baseline!r}, which is not among the arms; add it")
        if self.learning_rates is not None and (task := self.learning_rates.task) not in self.tasks:
            raise ValueError(f"learning_rates.task is {task!r}; {nearest(task, [*self.tasks])}")
        return self

    def arm(self, name: str) -> Arm:
        """An arm by name."""
        if name in ARMS:
            return ARMS[name]
        custom = self.custom[name]
        base = ARMS[custom.base].overrides if custom.base is not None else {}
        return Arm(name, custom.what or name, {**base, **custom.set})

    def budget_of(self, task: str, arm: str) -> Budget:
        """When a run of this arm ends."""
        samples = self.custom[arm].samples if arm in self.custom else None
        return Budget(samples=samples) if samples is not None else self.tasks[task].budget or self.budget

    @property
    def arm_names(self) -> list[str]:
        """All arms, sets replaced by their members."""
        return expand(list(self.arms))


def read_plan(path: Path) -> Plan:
    """The plan of a TOML file. Raises UsageError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"plan {path}: cannot be read: {error.strerror}; the shipped ones are in bench/plans"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"plan {path} is not TOML: {error}") from None
    try:
        return Plan.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        faults = [_describe(fault) for fault in error.errors()]
        raise ConfigError(str(path), faults) from None


def _describe(fault: Any) -> str:
    place = ".".join(map(str, fault["loc"]))
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def make_cell(
    plan: Plan,
    places: Places,
    task: str,
    arm: str,
    seed: int,
    *,
    model: str | None = None,
    lr: float | None = None,
    is_trial: bool = False,
    root: Path = Path(),
) -> Cell:
    """A run of the plan, checked.

    Args:
        model: `model.path` in place of the recipe's: that of a model taught for the task.
        lr: `learner.lr` in place of the recipe's: the one found for the arm.
        is_trial: whether the run is part of the search for learning rates.
        root: of the repository, where recipes are looked for.

    Raises:
        UsageError: the recipe is not there, or does not take the overrides.
    """
    entry = plan.tasks[task]
    overrides: dict[str, Any] = {**plan.set, **entry.set}
    if model is not None:
        overrides["model.path"] = model
    if lr is not None:
        overrides["learner.lr"] = lr
    recipe = root / entry.recipe
    of_arm = plan.arm(arm).overrides
    overrides |= {**_unsaid(recipe, of_arm), **of_arm}
    overrides["run.seed"] = seed
    overrides["run.directory"] = str(places.work)
    overrides["task.eval.size"] = plan.evaluation.size
    if plan.evaluation.seed is not None and not is_trial:
        overrides["task.eval.seed"] = plan.evaluation.seed
    config = resolve(recipe, overrides, f"{task}, arm {arm}")
    budget = plan.budget_of(task, arm)
    overrides["schedule.steps"] = _steps(budget, config, f"{task}, arm {arm}")
    overrides["learner.snapshot_every"] = entry.every_steps or plan.evaluation.every_steps
    return Cell(task, arm, seed, str(recipe), overrides, plan.evaluation.k, budget.wall_s, places)


def _unsaid(recipe: Path, of_arm: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults in place of whatever a recipe says of estimator and schedule, which are the arm's alone to say."""
    try:
        sections = tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):  # load_recipe tells what is wrong with it
        return {}
    found: dict[str, Any] = {}
    for name, fields in (("algorithm", AlgorithmConfig.model_fields), ("schedule", ScheduleConfig.model_fields)):
        for key in sections.get(name, {}).keys() & fields.keys():
            # None has a word where a recipe may say it.
            if (default := fields[key].get_default()) is not PydanticUndefined:
                found[f"{name}.{key}"] = "none" if default is None else default
    if "max_staleness" in sections.get("schedule", {}):
        said = {key.partition(".")[2]: value for key, value in of_arm.items() if key.startswith("schedule.")}
        found["schedule.max_staleness"] = derived_staleness(said)
    return found


def resolve(recipe: Path | str, overrides: Mapping[str, Any], place: str) -> RapidConfig:
    """The recipe with these overrides. Raises ConfigError that names `place`."""
    try:
        return load_recipe(Path(recipe), [f"{key}={to_toml(value)}" for key, value in overrides.items()])
    except ConfigError as error:
        raise ConfigError(f"{recipe} for {place}", error.problems) from None


def _steps(budget: Budget, config: RapidConfig, place: str) -> int:
    if budget.samples is None:
        if config.learner.lr_decay != "none":
            raise UsageError(
                f"{place}: learner.lr_decay is {config.learner.lr_decay!r} with budget.wall_s, where nobody knows the "
                'last step beforehand: expected "none"; or take budget.samples'
            )
        return ENDLESS_STEPS
    batch = config.learner.batch_groups * config.actors.group_size
    if budget.samples % batch:
        raise UsageError(
            f"{place}: budget.samples = {budget.samples}, expected a multiple of the {batch} completions of an "
            f"optimizer step: take {budget.samples // batch * batch or batch}"
        )
    return budget.samples // batch


def check_fairness(cells: list[Cell]) -> None:
    """Raises UsageError where arms of one task differ in what must be the same, the learning rate aside."""
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for cell in {(cell.task, cell.arm): cell for cell in cells}.values():
        shared = shared_fields(resolve(cell.recipe, cell.overrides, f"{cell.task}, arm {cell.arm}"))
        arm, expected = first.setdefault(cell.task, (cell.arm, shared))
        for name, value in shared.items():
            if value != expected[name]:
                raise UsageError(
                    f"task {cell.task}: {name} is {value!r} in arm {cell.arm} and {expected[name]!r} in arm {arm}: "
                    "expected the same in all arms; leave it to the recipe or to the plan's set"
                )


def shared_fields(config: RapidConfig) -> dict[str, Any]:
    """What all arms of a task must share, by "section.key"."""
    values = config.model_dump(mode="json")
    values["run"] = {key: value for key, value in values["run"].items() if key not in ("name", "seed", "directory")}
    fields = {f"{section}.{key}": value for section in SHARED for key, value in values[section].items()}
    return {key: value for key, value in fields.items() if key != "learner.lr"}
