from __future__ import annotations

import re
from pathlib import Path

import pytest

from telemetry import catalogue
from telemetry.catalogue import METRICS, render_reference
from telemetry.errors import ExporterError
from telemetry.metric import PARTS, UNITS, Kind, Metric, Reduction, reduce_values
from telemetry.record import KEYS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_names_follow_the_rule(metric: Metric) -> None:
    assert re.fullmatch(r"rapid_[a-z]+(_[a-z]+)+", metric.name)
    assert metric.part in PARTS
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    if metric.unit:
        assert metric.unit in UNITS
        assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}")
    assert metric.help.endswith(".")
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_a_name_cannot_be_declared_twice() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        catalogue._gauge("hub", "ledger", "entries", "Again.")


def test_metrics_fed_by_records_name_keys_that_records_have() -> None:
    fed = [metric.record_key for metric in METRICS.values() if metric.record_key is not None]
    assert set(fed) <= {key.name for key in KEYS}
    assert len(fed) == len(set(fed))


def test_the_documentation_is_current() -> None:
    written = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == render_reference(), "run: python -m telemetry.catalogue > docs/metrics.md"


def test_the_documentation_names_every_metric_and_every_key() -> None:
    text = render_reference()
    assert [name for name in METRICS if f"| `{name}` |" not in text] == []
    assert [key.name for key in KEYS if f"| `{key.name}` |" not in text] == []


def test_metric_names_stand_nowhere_but_in_the_catalogue() -> None:
    names = re.compile("|".join(METRICS))
    folders = ("protocol", "buffer", "actors", "tasks", "learner", "telemetry", "rapid", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [str(path) for path in files if names.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [(Reduction.SUM, 6.0), (Reduction.MAX, 3.0), (Reduction.MIN, 1.0), (Reduction.LAST, 2.0)],
)
def test_values_of_several_processes_become_one(reduction: Reduction, expected: float) -> None:
    metric = Metric("rapid_actor_x", Kind.GAUGE, "X.", reduction=reduction)
    assert reduce_values(metric, [1.0, 3.0, 2.0]) == expected


def test_nothing_cannot_be_reduced() -> None:
    with pytest.raises(ExporterError, match="no value to reduce"):
        reduce_values(catalogue.ACTOR_TOKEN_RATE, [])
