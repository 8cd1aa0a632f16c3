from __future__ import annotations

from pathlib import Path

import pytest

from telemetry.run_dir import RunDirectory


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDirectory:
    """A new run's folder."""
    return RunDirectory.create(tmp_path / "runs" / "trial")
