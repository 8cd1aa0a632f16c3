"""What a metric is: its declaration, and how values of several processes become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from telemetry.errors import ExporterError

PARTS = ("hub", "actor", "learner", "eval", "launcher")
UNITS = (
    "actors",
    "bytes",
    "clients",
    "completions",
    "entries",
    "failures",
    "fraction",
    "groups",
    "leases",
    "nats",
    "requests",
    "seconds",
    "steps",
    "tokens",
    "tokens_per_second",
    "versions",
)


class Kind(StrEnum):
    """Prometheus' types."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Reduction(StrEnum):
    """How values of several processes, or of several moments, become one.

    There is no mean here: a mean of means weighs an idle process like a busy one. What must be averaged is
    averaged where its parts are known and declared LAST.
    """

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, `rapid_<part>_<what>_<unit>`; counters end in `_total`; a dimensionless value has no unit.

    `record_key` names the key of metrics.jsonl that feeds it, so that both tell the same number.
    """

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    reduction: Reduction = Reduction.LAST
    buckets: tuple[float, ...] = ()
    record_key: str | None = None

    @property
    def part(self) -> str:
        """The process that emits it: one of PARTS."""
        return self.name.split("_")[1]


def reduce_values(metric: Metric, values: Sequence[float]) -> float:
    """One value from those of several processes, oldest first. Raises ExporterError for none."""
    if not values:
        raise ExporterError(f"{metric.name}: no value to reduce, expected at least one")
    if metric.reduction is Reduction.SUM:
        return float(sum(values))
    if metric.reduction is Reduction.MAX:
        return max(values)
    if metric.reduction is Reduction.MIN:
        return min(values)
    return values[-1]
