"""Reads what an exporter serves, as Prometheus would."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from telemetry.exporter import Exporter
from telemetry.metric import Metric

Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(exporter: Exporter) -> dict[Sample, float]:
    with urllib.request.urlopen(f"http://{exporter.address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def value(samples: dict[Sample, float], metric: Metric, suffix: str = "", **labels: str) -> float:
    """One sample; a histogram's have the suffixes "_bucket", "_count" and "_sum"."""
    return samples[metric.name + suffix, frozenset(labels.items())]
