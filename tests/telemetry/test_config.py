from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from telemetry.config import TelemetryConfig

ROOT = Path(__file__).parents[2]


def test_every_field_is_documented() -> None:
    assert [name for name, field in TelemetryConfig.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"log_level": "LOUD"}, {"view": "3d"}, {"exports": True}])
def test_wrong_values_and_unknown_keys_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TelemetryConfig(**wrong)  # type: ignore[arg-type]


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys, telemetry.config, telemetry.run_dir, telemetry.exporter, telemetry.logs, telemetry.view, "
        "telemetry.plots, telemetry.report\n"
        "print([name for name in ('matplotlib', 'numpy', 'torch', 'ray', 'vllm') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
