"""One run of a plan: a task, an arm and a seed, with its files and its commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rapid.errors import UsageError

RAPID = (sys.executable, "-m", "rapid.cli")


LOCKS = ".locks"
"""Folder of the locks, among the runs."""


@dataclass(frozen=True)
class Places:
    """Where an experiment's files lie."""

    results: Path
    """Folder of the plan's results: what is kept."""
    work: Path
    """Folder of the runs: emptied as they end."""


@dataclass(frozen=True)
class Cell:
    """A run that the plan asks for."""

    task: str
    arm: str
    seed: int
    recipe: str
    overrides: Mapping[str, Any]
    """Fields of the recipe by "section.key", those of the experiment included."""
    ks: tuple[int, ...]
    wall_s: float | None
    """Seconds of training after which it is ended; None trains all of `schedule.steps`."""
    places: Places

    @property
    def name(self) -> str:
        """Name of the run, and of its folder. The arms of a search for learning rates are no names to `rapid`."""
        return f"{self.task}.{self.arm.replace('@', '-at-')}.{self.seed}"

    def named(self, arm: str) -> Cell:
        """The same run under another arm's name."""
        return replace(self, arm=arm)

    @property
    def result_path(self) -> Path:
        """The result, which is there exactly when the run has ended."""
        return self.places.results / self.task / self.arm / f"{self.seed}.json"

    def result(self) -> dict[str, Any] | None:
        """The result; None where the run has not ended. Raises UsageError where it cannot be read."""
        try:
            found: dict[str, Any] = json.loads(self.result_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UsageError(f"{self.result_path} is damaged: {error}; delete it, and the run is repeated") from None
        return found

    @property
    def lock_path(self) -> Path:
        """Held by whoever works on the run; in a folder of its own, where it stays."""
        return self.places.work / LOCKS / self.name

    @property
    def state_path(self) -> Path:
        """How far the run has come. Beside its folder, which `rapid train` makes itself."""
        return self.places.work / f"{self.name}.state.json"

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return self.places.work / self.name

    @property
    def snapshots(self) -> Path:
        """Folder of the weights to be evaluated, one folder a snapshot."""
        return self.run_dir / "snapshots"

    @property
    def log_path(self) -> Path:
        """What the commands printed."""
        return self.places.work / f"{self.name}.log"

    def sets(self) -> list[str]:
        """`--set` and its value, for each override."""
        return [part for key, value in sorted(self.overrides.items()) for part in ("--set", f"{key}={to_toml(value)}")]

    def train_arguments(self, *, resume: bool) -> list[str]:
        """Arguments of `rapid` that train it."""
        return ["train", self.recipe, "--run", self.name, *self.sets(), *(["--resume"] if resume else [])]

    def eval_arguments(self) -> list[str]:
        """Arguments of `rapid` that evaluate the snapshots not evaluated yet, and write eval.jsonl into its folder."""
        return ["eval", str(self.run_dir), "--snapshots", "--no-greedy", "--k", ",".join(map(str, self.ks))]


def to_toml(value: Any) -> str:
    """A value as TOML writes it; texts are quoted, so that "none" or "1" stay texts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(to_toml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {to_toml(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"an override is {value!r} ({type(value).__name__}), which TOML cannot write")
