"""The launcher's metrics: its actors, and the disk that the run's folder is on."""

from __future__ import annotations

import contextlib
import shutil

from protocol.status import FleetStatus
from telemetry import catalogue
from telemetry.config import TelemetryConfig
from telemetry.exporter import Exporter
from telemetry.run_dir import RunDirectory


class LauncherGauges:
    """Close it."""

    def __init__(self, config: TelemetryConfig, run: RunDirectory) -> None:
        self._exporter = Exporter("launcher", config, run.path)
        self._run = run
        self._restarted = 0

    def update(self, fleet: FleetStatus, restarted: int) -> None:
        """Bring all metrics up to now; `restarted` counts actors from the run's start."""
        exporter = self._exporter
        exporter.set(catalogue.LAUNCHER_WANTED, fleet.wanted)
        exporter.set(catalogue.LAUNCHER_RUNNING, fleet.running)
        exporter.set(catalogue.LAUNCHER_PENDING, fleet.pending)
        exporter.set(catalogue.LAUNCHER_ADVISED, fleet.advised)
        exporter.inc(catalogue.LAUNCHER_RESTARTED, restarted - self._restarted)
        self._restarted = restarted
        with contextlib.suppress(OSError):  # of a network's disk that is away for a while
            disk = shutil.disk_usage(self._run.path)
            exporter.set(catalogue.LAUNCHER_DISK_FREE, disk.free)
            exporter.set(catalogue.LAUNCHER_DISK_SIZE, disk.total)

    def close(self) -> None:
        """Stop serving."""
        self._exporter.close()
