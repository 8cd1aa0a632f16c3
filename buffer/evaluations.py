"""Which weights are evaluated while the run goes on, and what came of it.

A version is due if it is the first that was published at or after a multiple of `task.eval.every` optimizer steps, and
the last of the run is, whichever it is. The evaluator gets each that is due, and takes the newest when it is free.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protocol.messages import Evaluated, WeightManifest
from protocol.version import PolicyVersion
from telemetry.evaluations import append_evaluation, wall_s_of
from telemetry.record import Record

log = logging.getLogger(__name__)

KEPT = 8
"""Evaluations that Status holds: more than can come between two looks at it."""


class EvaluationDesk:
    """Events in, what to push or to tell out.

    Args:
        every: `task.eval.every`, in optimizer steps; None evaluates nothing.
        broadcast_every: `schedule.broadcast_every`: so far apart versions are published.
        run_dir: the run's folder, for `eval.jsonl`; None writes nothing.
    """

    def __init__(self, every: int | None, broadcast_every: int, run_dir: Path | None) -> None:
        self._every, self._broadcast_every, self._run_dir = every, broadcast_every, run_dir
        self._recent: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.due: WeightManifest | None = None
        """The newest weights that are to be evaluated and have not been."""

    @property
    def recent(self) -> list[dict[str, Any]]:
        """The newest evaluations, oldest first."""
        return list(self._recent)

    @property
    def due_version(self) -> PolicyVersion | None:
        """The version of `due`."""
        return None if self.due is None else self.due.version

    def publish(self, manifest: WeightManifest) -> bool:
        """Weights are out; whether the evaluator is to have them."""
        if self._every is None or manifest.version.step % self._every >= self._broadcast_every:
            return False
        return self._take(manifest)

    def ask_last(self, manifest: WeightManifest | None, version: PolicyVersion) -> bool:
        """`version` is the run's last; whether the evaluator is to have it and did not get it before.

        Args:
            manifest: the newest weights.
        """
        if self._every is None or manifest is None or manifest.version != version:
            return False
        return self._take(manifest)

    def _take(self, manifest: WeightManifest) -> bool:
        known = {self.due_version, *(PolicyVersion(one["incarnation"], one["step"]) for one in self._recent)}
        if manifest.version in known:
            return False
        self.due = manifest
        return True

    def finish(self, message: Evaluated, records: Sequence[Record]) -> str | None:
        """An evaluation is done or was left out; what to tell of one left out.

        Args:
            records: the step records so far, for the time at which the weights were made.
        """
        version = message.version
        if self.due is not None and version >= self.due.version:
            self.due = None
        if message.result is None:
            return f"the evaluation of step {version.step} is left out: {message.reason}"
        self._keep(version, message.result, records)
        return None

    def _keep(self, version: PolicyVersion, result: Mapping[str, Any], records: Sequence[Record]) -> None:
        evaluation = {
            "step": version.step,
            "incarnation": version.incarnation,
            "wall_s": wall_s_of(records, version.incarnation, version.step),
            **result,
            "source": "training",
        }
        self._recent.append(evaluation)
        if self._run_dir is None:
            return
        try:
            append_evaluation(self._run_dir, evaluation)
        except (OSError, ValueError) as error:
            # The curve loses a point; the run goes on.
            log.error("the evaluation of step %d cannot be written: %s", version.step, error)
