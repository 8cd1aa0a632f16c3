"""Serves one process's metrics to Prometheus, over HTTP: on loopback, unless the configuration says otherwise."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from telemetry.catalogue import (
    LAG_DIAGNOSTICS,
    LAG_QUANTILES,
    LEARNER_LAG_QUANTILE,
    METRICS,
    OPTIONAL_DIAGNOSTICS,
)
from telemetry.config import LOOPBACK, TelemetryConfig
from telemetry.errors import ExporterError
from telemetry.metric import Kind, Metric
from telemetry.targets import announce, split_process

_ACTOR_PORT, _ACTOR_PORTS = 100, 100
_Instrument = Gauge | Counter | Histogram
_CLASSES: dict[Kind, type[_Instrument]] = {Kind.GAUGE: Gauge, Kind.COUNTER: Counter, Kind.HISTOGRAM: Histogram}


class Exporter:
    """The metrics of one process. When disabled, every call checks its arguments and does nothing else.

    Args:
        process: "hub", "learner-0", "actor-3": the part whose metrics it emits, and its number.
        config: whether, and where; `host` "auto" is loopback here, see `TelemetryConfig.facing`.
        run_dir: where `exporters/PROCESS.json` tells others the address; None tells nobody.

    Raises:
        ExporterError: the port is taken, or `process` is no part of Rapid.
    """

    def __init__(self, process: str, config: TelemetryConfig, run_dir: Path | str | None = None) -> None:
        self.process, self.part, self._index = process, *_split_process(process)
        self.address: str | None = None
        self._instruments: dict[str, _Instrument] = {}
        self._labels: dict[str, set[str]] = {}
        self._server: Any = None
        self._sd_path: Path | None = None
        if config.exporter:
            self._start(config, Path(run_dir) if run_dir is not None else None)

    def _start(self, config: TelemetryConfig, run_dir: Path | None) -> None:
        # The library's global registry would mix the metrics of other libraries in this process into ours.
        registry = CollectorRegistry(auto_describe=True)
        for metric in METRICS.values():
            if metric.part == self.part:
                self._instruments[metric.name] = _build(metric, registry)
        host = LOOPBACK if config.host == "auto" else config.host
        self._server = self._listen(host, ports_of(config.port, self.part, self._index), registry)
        self.address = f"{f'[{host}]' if ':' in host else host}:{self._server.server_port}"
        if run_dir is not None:
            self._sd_path = announce(run_dir, self.process, self.address)

    def _listen(self, host: str, ports: range, registry: CollectorRegistry) -> Any:
        for port in ports:
            try:
                return start_http_server(port, host, registry)[0]
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port != ports[-1]:
                    continue
                where = f"{port}" if len(ports) == 1 else f"{ports[0]} to {port}"
                raise ExporterError(
                    f"cannot serve the metrics of {self.process} on {host}:{where}: {error.strerror}; "
                    "set telemetry.port to a free one, or to 0 for any"
                ) from error
        raise AssertionError("ports_of names at least one")

    def set(self, metric: Metric, value: float | None, **labels: str) -> None:
        """Set a gauge; None, which a record has where there is nothing to measure, leaves it as it is."""
        instrument = self._find(metric, Kind.GAUGE, labels)
        if instrument is not None and value is not None:
            instrument.set(value)

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        instrument = self._find(metric, Kind.COUNTER, labels)
        if instrument is not None:
            instrument.inc(amount)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        instrument = self._find(metric, Kind.HISTOGRAM, labels)
        if instrument is not None:
            instrument.observe(value)

    def set_all(self, metric: Metric, label: str, values: Mapping[Any, float]) -> None:
        """Set a gauge for each value of its one label, such as entries by state; what is absent becomes 0."""
        known = self._labels.setdefault(metric.name, set())
        known.update(str(key) for key in values)
        present = {str(key): value for key, value in values.items()}
        for key in known:
            self.set(metric, present.get(key, 0.0), **{label: key})

    def record(self, record: Mapping[str, Any]) -> None:
        """Feed all metrics that a record of metrics.jsonl feeds, its diagnostics by lag included."""
        for metric in METRICS.values():
            value = record.get(metric.record_key) if metric.record_key is not None else None
            if metric.part == self.part and value is not None:
                self._feed(metric, value)
        diagnostics = record.get("diagnostics") or {}
        for key, metric in OPTIONAL_DIAGNOSTICS.items():
            if diagnostics.get(key) is not None:
                self._feed(metric, diagnostics[key])
        for lag, values in (diagnostics.get("by_lag") or {}).items():
            for key, metric in LAG_DIAGNOSTICS.items():
                if values.get(key) is not None:
                    self._feed(metric, values[key], lag=str(lag))
            for key, quantile in LAG_QUANTILES.items():
                if values.get(key) is not None:
                    self._feed(LEARNER_LAG_QUANTILE, values[key], lag=str(lag), quantile=quantile)

    def _feed(self, metric: Metric, value: float, **labels: str) -> None:
        if metric.kind is Kind.GAUGE:
            self.set(metric, value, **labels)
        elif metric.kind is Kind.COUNTER:
            self.inc(metric, value, **labels)
        else:
            self.observe(metric, value, **labels)

    def _find(self, metric: Metric, kind: Kind, labels: Mapping[str, str]) -> Any:
        if metric.kind is not kind or metric.part != self.part or set(labels) != set(metric.labels):
            raise ExporterError(
                f"{metric.name} is a {metric.kind} of {metric.part} with labels {list(metric.labels)}, "
                f"used as a {kind} by {self.process} with labels {list(labels)}"
            )
        instrument = self._instruments.get(metric.name)
        return instrument.labels(**labels) if instrument is not None and labels else instrument

    def close(self) -> None:
        """Stop serving and take the address back. Idempotent."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._sd_path is not None:
            self._sd_path.unlink(missing_ok=True)
            self._sd_path = None


def _split_process(process: str) -> tuple[str, int]:
    try:
        return split_process(process)
    except ValueError as error:
        raise ExporterError(f"exporter: {error}") from None


def ports_of(base: int, part: str, index: int) -> range:
    """Where a part may serve its metrics when `telemetry.port` is `base`, best first; 0 means any free port.

    An actor takes the first that is free: alone on its node it has the same port whatever its number, so that a
    monitor that finds nodes by itself knows it.
    """
    if base == 0:
        return range(1)
    if part == "actor":
        return range(base + _ACTOR_PORT, base + _ACTOR_PORT + _ACTOR_PORTS)
    port = base + {"hub": 0, "learner": 1, "launcher": 2, "eval": 3}[part] + index
    return range(port, port + 1)


def _build(metric: Metric, registry: CollectorRegistry) -> _Instrument:
    arguments: dict[str, Any] = {"labelnames": metric.labels, "registry": registry}
    if metric.kind is Kind.HISTOGRAM:
        arguments["buckets"] = metric.buckets
    return _CLASSES[metric.kind](metric.name, metric.help, **arguments)
