"""What the plan asks of a run, against what a result or a run under way was made with.

A result of another plan of the same name, or of another recipe, would count as one of this; and a run that was cut off
would go on with other values than it began with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from bench.table.cell import Cell
from bench.table.collect import without_machine
from bench.table.plan import resolve
from rapid.errors import UsageError

_SECTIONS = ("model", "task", "actors", "schedule", "buffer", "learner", "algorithm", "weights")
"""Those that say what is learned, how, and how fast."""
_OF_RUN = ("lend_cores",)
# An override that says where things lie, and nothing about what is run.
_OF_THE_MACHINE = "run.directory"


def asked(cell: Cell) -> dict[str, Any]:
    """All that a run is begun with, as JSON reads it back; it must be the same where the run goes on."""
    recipe = Path(cell.recipe)
    values = {
        "recipe": recipe.read_text(encoding="utf-8") if recipe.exists() else None,
        "overrides": {key: value for key, value in cell.overrides.items() if key != _OF_THE_MACHINE},
        "k": cell.ks,
        "wall_s": cell.wall_s,
    }
    found: dict[str, Any] = json.loads(json.dumps(values))
    return found


def difference(cell: Cell, result: Mapping[str, Any]) -> str | None:
    """The first thing that the plan asks otherwise than the result has it, such as "learner.lr = 1e-4, now 2e-4"."""
    then, now = _named(result["overrides"]), _named(json.loads(json.dumps(dict(cell.overrides))))
    if found := _first(then, now, then.keys() | now.keys()):
        return found
    config = without_machine(
        resolve(cell.recipe, cell.overrides, f"{cell.task}, arm {cell.arm}").model_dump(mode="json"), {}
    )
    then, now = _fields(result["config"]), _fields(config)
    # A field that came or went since was not there to be chosen.
    if found := _first(then, now, then.keys() & now.keys()):
        return found
    then = {"evaluation.k": sorted(int(k) for k in result["curve"][-1]["pass_at"])}
    then |= {"budget.wall_s": result["budget_wall_s"]} if "budget_wall_s" in result else {}
    return _first(then, {"evaluation.k": list(cell.ks), "budget.wall_s": cell.wall_s}, then)


def check_results(cells: Sequence[Cell]) -> None:
    """Raises UsageError where a result was made otherwise than the plan asks."""
    for cell in cells:
        if (result := cell.result()) is not None and (found := difference(cell, result)) is not None:
            raise UsageError(
                f"{cell.result_path} was run with {found}: give the plan another name, or delete what the old one left"
            )


def matching(cells: Sequence[Cell]) -> tuple[list[dict[str, Any]], list[str]]:
    """The results there are of these runs, and what is to be told of those made otherwise than the plan asks."""
    results, others = [], []
    for cell in cells:
        if (result := cell.result()) is None:
            continue
        if (found := difference(cell, result)) is None:
            results.append(result)
        else:
            others.append(f"{cell.result_path.name} of {cell.arm} on {cell.task}, which was run with {found}")
    return results, others


def _first(then: Mapping[str, Any], now: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    differing = (key for key in sorted(keys) if then.get(key) != now.get(key))
    return next((f"{key} = {then.get(key)!r}, now {now.get(key)!r}" for key in differing), None)


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by "section.key". A model goes by the last part of its path: folders differ by machine, and the name of a
    taught model is a hash of all that it depends on."""
    found = {key: value for key, value in values.items() if key != _OF_THE_MACHINE}
    if isinstance(path := found.get("model.path"), str):
        found["model.path"] = PurePath(path).name
    return found


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    sections = {name: config.get(name, {}) for name in _SECTIONS}
    sections["run"] = {key: value for key, value in config.get("run", {}).items() if key in _OF_RUN}
    return _named({f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()})
