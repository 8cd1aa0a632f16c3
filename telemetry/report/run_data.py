"""Everything that a run's folder says about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from telemetry.evaluations import Evaluation, read_evaluations
from telemetry.record import Record
from telemetry.run_dir import RunDirectory
from telemetry.samples import Sample, read_samples
from telemetry.summary import Figures, compute_figures
from telemetry.timeline import Span, read_timeline


@dataclass(frozen=True, slots=True)
class RunData:
    """One run. What it did not leave behind is empty, so that a report of an old or a broken run can be made."""

    name: str
    config: Mapping[str, Any]
    records: Sequence[Record]
    status: Mapping[str, Any] | None = None
    """The ledger at the end, as in the hub's Status: "ledger" (entries by state), "opened", "events"."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """environment.json."""
    timeline: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    """By process, in the order in which they are drawn."""
    samples: Sequence[Sample] = ()
    evaluations: Sequence[Evaluation] = ()
    """eval.jsonl, one a step."""

    @property
    def bound(self) -> int:
        """The bound on staleness, in optimizer steps."""
        return int(self.config["schedule"]["max_staleness"])

    @property
    def figures(self) -> Figures:
        """What it came to."""
        return compute_figures(self.records)


def load_run(run_dir: RunDirectory, status: Mapping[str, Any] | None = None) -> RunData:
    """Read a run's folder. `status` as in `RunData`.

    Raises:
        RunDirectoryError: its configuration is missing or damaged.
        RecordError: its metrics are damaged.
    """
    return RunData(
        name=run_dir.name,
        config=run_dir.read_config(),
        records=run_dir.read_metrics(),
        status=status,
        environment=_read_environment(run_dir),
        timeline=_read_timelines(run_dir),
        samples=read_samples(run_dir.samples_path),
        evaluations=read_evaluations(run_dir.path),
    )


def _read_environment(run_dir: RunDirectory) -> dict[str, Any]:
    try:
        found = json.loads(run_dir.environment_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Runs of older versions have none.
        return {}
    return found if isinstance(found, dict) else {}


def _read_timelines(run_dir: RunDirectory) -> dict[str, list[Span]]:
    found = {path.stem: read_timeline(path) for path in run_dir.timeline.glob("*.jsonl")}
    return {name: found[name] for name in sorted(found, key=_lane_order) if found[name]}


def _lane_order(name: str) -> tuple[bool, int, str]:
    """The learner's ranks first, then the actors by number."""
    part, _, number = name.partition("-")
    return part != "learner", int(number) if number.isdigit() else 0, name
