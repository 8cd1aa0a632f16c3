"""From the results of a plan to one row an arm on each task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.table.curves import (
    Curve,
    Interval,
    Mean,
    equal_accuracy,
    mean_of,
    saving,
    saving_interval,
    time_to,
    trailing_mean,
    value_at,
)
from bench.table.timing import KINDS

Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What an arm came to on a task; means over its seeds."""

    arm: str
    seeds: tuple[int, ...]
    accuracy: dict[int, Mean]
    """By k: pass@k at the end, for each seed the mean of the last evaluations."""
    time_to_equal_s: float | None
    """Until equal accuracy; None if it was not reached."""
    saving: Interval
    """At equal accuracy."""
    samples: Mean
    """Completions trained on, at the end."""
    time_of_samples_s: Mean
    """Until `Table.equal_samples` completions were trained on."""
    saving_of_samples: float | None
    """At equal samples."""
    peak_bytes: Mean | None
    """All processes together."""
    shares: dict[str, float]
    """Share of the wall time by bench.table.timing.KINDS."""
    lag_mean: Mean
    """Measured, over tokens."""
    lag_max: int
    generated: Mean
    """Completions generated for each one trained on."""
    notes: tuple[str, ...]
    """What is to be known of single runs."""


@dataclass(frozen=True)
class Table:
    """One task."""

    task: str
    baseline: str
    equal_accuracy: float | None
    """None while the baseline has no result."""
    equal_samples: float
    """Completions that every run of the task has trained on."""
    rows: tuple[Row, ...]
    curves: dict[str, list[Curve]]
    """By arm, one for each seed."""


def to_curve(result: Result, k: int = 1) -> Curve:
    """The held-out curve of a run."""
    points = result["curve"]
    return Curve(
        tuple(point["step"] for point in points),
        tuple(float(point["wall_s"]) for point in points),
        tuple(float(point["samples"]) for point in points),
        tuple(float(point["pass_at"][str(k)]["mean"]) for point in points),
    )


def whole_curve(result: Result, k: int = 1) -> Curve:
    """The curve of a run; of one that diverged, 0 at the steps it would have been evaluated at, at its pace until then.

    A policy that is no longer finite answers nothing, and to leave its seed out would flatter the arm.
    """
    curve = to_curve(result, k)
    missing = [step for step in _evaluated_steps(result) if step > curve.steps[-1]] if result["is_diverged"] else []
    pace = [step / result["steps"] for step in missing]
    return Curve(
        (*curve.steps, *missing),
        (*curve.times_s, *(result["wall_s"] * share for share in pace)),
        (*curve.samples, *(result["samples"] * share for share in pace)),
        (*curve.accuracy, *(0.0 for _ in missing)),
    )


def _evaluated_steps(result: Result) -> list[int]:
    """Steps that a run is evaluated at if nothing comes between; of one that time ends, as far as its pace goes."""
    every, last = result["overrides"]["learner.snapshot_every"], result["overrides"]["schedule.steps"]
    if (limit_s := result.get("budget_wall_s")) is not None:
        last = int(result["steps"] * limit_s / result["wall_s"])
    return sorted({*range(every, last + 1, every), last})


def summarise(results: Sequence[Result], *, arms: Sequence[str], baseline: str, window: int) -> list[Table]:
    """A table for each task that has a result, rows in the order of `arms`."""
    by_task: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result["arm"] in arms:
            by_task[result["task"]][result["arm"]].append(result)
    return [_table(task, by_arm, arms, baseline, window) for task, by_arm in sorted(by_task.items())]


def _table(task: str, by_arm: Mapping[str, list[Result]], arms: Sequence[str], baseline: str, window: int) -> Table:
    present = [arm for arm in arms if by_arm.get(arm)]
    curves = {arm: [whole_curve(result) for result in by_arm[arm]] for arm in present}
    samples = min(curve.samples[-1] for of_arm in curves.values() for curve in of_arm)
    reference = curves.get(baseline)
    rows = tuple(_row(arm, by_arm[arm], reference, samples, window) for arm in present)
    level = equal_accuracy(reference, window) if reference else None
    return Table(task, baseline, level, samples, rows, curves)


def _row(
    arm: str,
    results: Sequence[Result],
    reference: Sequence[Curve] | None,
    samples: float,
    window: int,
) -> Row:
    curves = [whole_curve(result) for result in results]
    times = mean_of([value_at(curve.samples, curve.times_s, samples) for curve in curves])
    reached, saved, saved_of_samples = None, Interval(None, None, None, 0.0), None
    if reference:
        reached = time_to(curves, equal_accuracy(reference, window), window)
        saved = saving_interval(curves, reference, window)
        theirs = mean_of([value_at(curve.samples, curve.times_s, samples) for curve in reference])
        saved_of_samples = saving(times.value, theirs.value)
    peaks = [float(result["memory_bytes"]["total"]) for result in results if result["memory_bytes"].get("total")]
    return Row(
        arm=arm,
        seeds=tuple(result["seed"] for result in results),
        accuracy={k: _final(results, k, window) for k in _ks(results)},
        time_to_equal_s=reached,
        saving=saved,
        samples=mean_of([curve.samples[-1] for curve in curves]),
        time_of_samples_s=times,
        saving_of_samples=saved_of_samples,
        peak_bytes=mean_of(peaks) if peaks else None,
        shares=_shares(results),
        lag_mean=mean_of([float(result["lag_mean"]) for result in results]),
        lag_max=max(result["lag_max"] for result in results),
        generated=mean_of([result["samples_generated"] / max(result["samples"], 1) for result in results]),
        notes=tuple(f"{arm}, seed {result['seed']}: {note}" for result in results for note in result["notes"]),
    )


def _ks(results: Sequence[Result]) -> list[int]:
    return sorted(int(k) for k in results[0]["curve"][-1]["pass_at"])


def _final(results: Sequence[Result], k: int, window: int) -> Mean:
    return mean_of([trailing_mean(whole_curve(result, k).accuracy, window)[-1] for result in results])


def _shares(results: Sequence[Result]) -> dict[str, float]:
    totals = {kind: sum(result["time_s"][kind] for result in results) for kind in KINDS}
    whole = sum(totals.values())
    return {kind: seconds / whole if whole else 0.0 for kind, seconds in totals.items()}
