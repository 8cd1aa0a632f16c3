"""Errors of telemetry.

TelemetryError
├── RunDirectoryError     a run's folder that exists already, is missing, or is not one
├── RecordError           a line of metrics.jsonl that breaks the contract: our own misuse
├── ExporterError         a metrics port that cannot be bound, or a metric that is not the catalogue's
└── TrackerError          a tracker whose package or login is missing
"""


class TelemetryError(Exception):
    """Base of what can go wrong while a run tells about itself."""


class RunDirectoryError(TelemetryError):
    """A run's folder exists already, does not exist, or holds something else."""


class RecordError(TelemetryError):
    """A metrics record lacks a key of the contract, has one too many, or one of another type."""


class ExporterError(TelemetryError):
    """A metrics port is taken, or a metric is used against its declaration."""


class TrackerError(TelemetryError):
    """An experiment tracker that cannot be used: its package or its login is missing."""
