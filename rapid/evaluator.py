"""The evaluator of a run as a process on Ray: started, and started anew when it dies. The run never waits for it.

waits for a place ──► lives ──► stopped at the end
                        └─ dies ──► started anew, `actors.restarts` times ──► gone, with a warning
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray

from rapid.failures import outcome
from rapid.fleet import LIVED_WELL_S
from rapid.parts import EvaluatorPart
from rapid.placement import CorePlan
from rapid.preflight import Plan

NAME = "eval-0"


class EvaluatorKeeper:
    """Used in this order: `start`, `tasks` and `ended` until the run ends, `stop`.

    Args:
        options: what the process asks of Ray.
        tell: called with each thing that happens which the user should hear of.
    """

    def __init__(
        self,
        plan: Plan,
        cores: CorePlan,
        options: dict[str, Any],
        hub_address: str,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan, self._cores, self._options, self._hub_address = plan, cores, options, hub_address
        self._tell, self._clock = tell, clock
        self._handle: Any = None
        self._task: Any = None
        self._starts, self._started_s = 0, 0.0

    @property
    def is_gone(self) -> bool:
        """Whether it was started and is beyond its restarts."""
        return self._handle is not None and self._task is None

    def start(self) -> None:
        """Ask Ray for the process; it may take a while to find a place."""
        config = self._plan.config
        self._starts, self._started_s = self._starts + 1, self._clock()
        self._handle = EvaluatorPart.options(**self._options).remote(NAME, self._plan.run_dir, config.telemetry)
        cores, loan = self._cores.evaluator, self._cores.evaluator_loan()
        settings = self._plan.rollout_settings(NAME, self._hub_address, config.run.seed, cores, loan)
        self._task = self._handle.run.remote(settings)

    def tasks(self) -> list[Any]:
        """A reference that is done when the process has ended; none once it is gone."""
        return [self._task] if self._task is not None else []

    def ended(self) -> None:
        """The process has ended."""
        how = outcome(self._task)
        if self._clock() - self._started_s > LIVED_WELL_S:
            self._starts = 0
        if self._starts <= self._plan.config.actors.restarts:
            self._tell(f"{NAME} ended ({how}); starting it anew, start {self._starts + 1}")
            self.start()
        else:
            self._task = None
            self._tell(f"{NAME} ended ({how}); no more evaluations after {self._starts} starts, training goes on")

    def stop(self, timeout_s: float) -> None:
        """Ask it to end, and wait for it; one that has no place yet, or does not end, is ended."""
        if self._task is None:
            return
        self._handle.stop.remote()
        if not ray.wait([self._task], timeout=timeout_s)[0]:
            ray.kill(self._handle)
