"""What the learner hears of evaluations: results, one for each record, and at its end whether the last is done."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

from protocol.status import Status

log = logging.getLogger(__name__)


class EvaluationInbox:
    """Results as the hub's Status tells them, in order, each once."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self._waiting: deque[dict[str, Any]] = deque()

    def look(self, status: Status) -> None:
        """Note what is new."""
        for evaluation in status.evaluations:
            version = (evaluation["incarnation"], evaluation["step"])
            if version not in self._seen:
                self._seen.add(version)
                self._waiting.append({key: value for key, value in evaluation.items() if key != "wall_s"})

    def take(self) -> dict[str, Any] | None:
        """The oldest that no record has told yet."""
        return self._waiting.popleft() if self._waiting else None


class LastEvaluation:
    """Whether the end should go on waiting for the evaluation of the last weights; from the moment it is made.

    Args:
        limit_s: for how long at most.
    """

    def __init__(self, limit_s: float) -> None:
        self._begin_s, self._limit_s = time.monotonic(), limit_s

    def is_awaited(self, status: Status) -> bool:
        """False once it is done, will not come, or has taken too long."""
        if status.evaluation_due is None:
            return False
        if status.fleet is not None and status.fleet.is_evaluator_gone:
            log.warning("the last weights, %s, are not evaluated: the evaluator is gone", status.evaluation_due)
            return False
        if time.monotonic() - self._begin_s > self._limit_s:
            log.warning(
                "the evaluation of the last weights, %s, was not done after %.0f s (task.eval.end_wait_s)",
                status.evaluation_due,
                self._limit_s,
            )
            return False
        return True
