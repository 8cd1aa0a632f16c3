"""PromQL over the metrics of the catalogue: names come from their constants, and a kind is asked for what it has."""

from __future__ import annotations

from dataclasses import dataclass

from telemetry.catalogue import LEARNER_LAG_TOKENS, LEARNER_STEP
from telemetry.metric import Kind, Metric


@dataclass(frozen=True)
class Scope:
    """Which series an expression is about, and the time over which it takes rates.

    Args:
        matchers: label matchers that each selector begins with; empty for all series.
        window: a duration, such as "10m", or a variable of Grafana's.
    """

    matchers: str
    window: str

    def last(self, metric: Metric, **labels: str) -> str:
        """The value of a gauge or a counter."""
        _expect(metric, Kind.GAUGE, Kind.COUNTER)
        return self._select(metric.name, labels)

    def learned(self, gauge: Metric) -> str:
        """A gauge that the learner sets at each step, from the first step on: before it, every gauge reads 0."""
        return f"{self.last(gauge)} and {self.last(LEARNER_STEP)} > 0"

    def by_lag(self, gauge: Metric) -> str:
        """A gauge of the learner's by lag, of the lags trained within the window: others keep their last value."""
        return f"{self.last(gauge)} and on (lag) {self.rate(LEARNER_LAG_TOKENS, 'lag')} > 0"

    def rate(self, counter: Metric, *by: str, **labels: str) -> str:
        """Increase a second of a counter, summed over all but the labels `by`."""
        _expect(counter, Kind.COUNTER)
        return self._sum_rate(counter.name, by, labels)

    def spent(self, histogram: Metric, *by: str) -> str:
        """Increase a second of what a histogram adds up: seconds a second, if it is of times."""
        _expect(histogram, Kind.HISTOGRAM)
        return self._sum_rate(f"{histogram.name}_sum", by, {})

    def count(self, histogram: Metric, *by: str) -> str:
        """Observations a second."""
        _expect(histogram, Kind.HISTOGRAM)
        return self._sum_rate(f"{histogram.name}_count", by, {})

    def mean(self, histogram: Metric, *by: str) -> str:
        """Mean of the observations; no value while there are none."""
        return f"{self.spent(histogram, *by)} / ({self.count(histogram, *by)} > 0)"

    def quantile(self, q: float, histogram: Metric, *by: str) -> str:
        """Quantile of the observations, interpolated within a bucket; no value while there are none."""
        _expect(histogram, Kind.HISTOGRAM)
        return f"histogram_quantile({q:g}, {self.buckets(histogram, *by)}) >= 0"

    def buckets(self, histogram: Metric, *by: str) -> str:
        """Observations a second, by bucket."""
        _expect(histogram, Kind.HISTOGRAM)
        return self._sum_rate(f"{histogram.name}_bucket", ("le", *by), {})

    def _sum_rate(self, name: str, by: tuple[str, ...], labels: dict[str, str]) -> str:
        grouping = f" by ({', '.join(by)})" if by else ""
        return f"sum{grouping} (rate({self._select(name, labels)}[{self.window}]))"

    def _select(self, name: str, labels: dict[str, str]) -> str:
        inside = ", ".join([*([self.matchers] if self.matchers else []), *(f'{k}="{v}"' for k, v in labels.items())])
        return f"{name}{{{inside}}}" if inside else name


def _expect(metric: Metric, *kinds: Kind) -> None:
    if metric.kind not in kinds:
        raise ValueError(f"{metric.name} is a {metric.kind}, expected a {' or a '.join(kinds)}")
