"""Hands the records of a run to experiment trackers: TensorBoard, Weights & Biases.

    launcher ──records──► queue ──► a thread ──► sinks (telemetry.tracker_sinks)

The launcher reads the records anyhow, so that a tracker costs learner and actors nothing, and a thread of its own
keeps a slow one from the launcher's loop. A tracker that fails is told of once and left out; the run goes on.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from telemetry.config import TelemetryConfig
from telemetry.errors import TrackerError
from telemetry.record import DIAGNOSTICS, Record
from telemetry.run_dir import RunDirectory
from telemetry.tracker_sinks import SINKS, Sink

log = logging.getLogger(__name__)

_END_S = 45.0
_PREFIX = "rapid.learner"


def scalars(record: Record) -> dict[str, float]:
    """The numbers of a record by dotted names, as OpenTelemetry has them.

    `rapid.learner.reward_mean` for each key of the contract, `rapid.learner.eval.NAME`, and of the diagnostics
    `rapid.learner.diagnostics.NAME` and `rapid.learner.lag.0.ess_fraction`. Nulls are left out.
    """
    found: dict[str, float] = {}
    diagnostics = dict(record.get(DIAGNOSTICS) or {})
    by_lag = diagnostics.pop("by_lag", None) or {}
    _collect(found, _PREFIX, {key: value for key, value in record.items() if key != DIAGNOSTICS})
    _collect(found, f"{_PREFIX}.{DIAGNOSTICS}", diagnostics)
    _collect(found, f"{_PREFIX}.lag", by_lag)
    return found


def _collect(found: dict[str, float], prefix: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _collect(found, f"{prefix}.{key}", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}.{key}"] = float(value)


def check_trackers(names: Iterable[str]) -> None:
    """Raises TrackerError for a tracker whose package is missing, or that wants a login and has none."""
    for name in names:
        sink = SINKS[name]
        if importlib.util.find_spec(sink.package) is None:
            raise TrackerError(
                f'telemetry.trackers names "{name}", but the package {sink.package} is not installed: '
                "pip install --no-deps -r requirements/trackers.txt, or leave the tracker out"
            )
        sink.check()


class Trackers:
    """The trackers of a run. Used as a context manager, so that they are closed however the run ends.

    Args:
        run: the run's folder; what it holds already has been handed over by the launcher before.
        config: the run's whole configuration, for the trackers to show.
        telemetry: which trackers.
        tell: called with a line about a tracker that failed, from the thread that calls `offer` or closes.
        sinks: what the names stand for.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: Mapping[str, Any],
        telemetry: TelemetryConfig,
        tell: Callable[[str], None],
        sinks: Mapping[str, type[Sink]] = SINKS,
    ) -> None:
        self._tell = tell
        history = run.read_history()
        self._newest = _stamp(history[-1]) if history else (0, 0)
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._failures: queue.SimpleQueue[str] = queue.SimpleQueue()
        makers = {name: lambda name=name: sinks[name](run.path, config, telemetry) for name in telemetry.trackers}
        self._thread: threading.Thread | None = None
        if makers:
            self._thread = threading.Thread(target=self._run, args=(makers,), name="rapid-trackers", daemon=True)
            self._thread.start()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def offer(self, records: Sequence[Record]) -> None:
        """Hand over those records that are new."""
        for record in records:
            if _stamp(record) > self._newest:
                self._newest = _stamp(record)
                self._queue.put(record)
        self._tell_failures()

    def offer_last(self, evaluations: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> None:
        """At the end of the run: hand over the evaluations that came too late for a record, at its last step."""
        told = {(one["incarnation"], one["step"]) for record in records if (one := record["eval"])}
        for evaluation in evaluations:
            if records and _stamp(evaluation) not in told:
                self._queue.put({**dict(zip(("incarnation", "step"), self._newest, strict=True)), "eval": evaluation})

    def close(self) -> None:
        """Wait until everything is handed over, but not for ever. Idempotent."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(_END_S)
        if self._thread.is_alive():
            self._failures.put(f"trackers are not done after {_END_S:g} s and are left to themselves")
        self._thread = None
        self._tell_failures()

    def _tell_failures(self) -> None:
        while not self._failures.empty():
            self._tell(self._failures.get())

    # --- in the thread ------------------------------------------------------------------------------

    def _run(self, makers: dict[str, Callable[[], Sink]]) -> None:
        opened = {name: self._attempt(name, make) for name, make in makers.items()}
        sinks: dict[str, Sink] = {name: sink for name, sink in opened.items() if sink is not None}
        while (record := self._queue.get()) is not None:
            for name, sink in list(sinks.items()):
                if self._attempt(name, lambda sink=sink: sink.write(record, scalars(record)) or sink) is None:
                    del sinks[name]
        for name, sink in sinks.items():
            self._attempt(name, lambda sink=sink: sink.close() or sink)

    def _attempt(self, name: str, act: Callable[[], Sink]) -> Sink | None:
        try:
            return act()
        except Exception as error:  # A tracker is somebody else's code and network; whatever it is, the run goes on.
            log.warning("tracker %s failed", name, exc_info=True)
            self._failures.put(f"tracker {name} failed and is left out: {type(error).__name__}: {error}")
            return None


def _stamp(record: Mapping[str, Any]) -> tuple[int, int]:
    return record["incarnation"], record["step"]
