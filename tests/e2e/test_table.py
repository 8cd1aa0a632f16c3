"""The experiment with the real `rapid`: a run is cut off, goes on, is evaluated, and leaves its result alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PLAN = """
arms = ["rapid-4"]
baseline = "rapid-4"
seeds = [0]
[budget]
samples = 1280
[evaluation]
every_steps = 5
size = 10
k = [1, 2]
smooth = 2
[set]
"actors.engine" = "scripted"
"actors.scripted.tokens_per_s" = 600
"telemetry.exporter" = false
[tasks.digits]
recipe = "recipes/tiny.toml"
"""
_LIMIT_S = 560.0


def test_a_run_that_is_cut_off_goes_on_and_is_evaluated(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(PLAN)
    metrics = tmp_path / "work" / "p" / "digits.rapid-4.0" / "metrics.jsonl"
    first = begin(tmp_path)
    try:
        deadline = time.monotonic() + _LIMIT_S
        while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 5):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        first.send_signal(signal.SIGINT)
        assert first.wait(_LIMIT_S) == 130
    finally:
        first.kill()
    assert not (tmp_path / "results" / "p" / "digits").exists()

    second = begin(tmp_path)
    try:
        assert second.wait(_LIMIT_S) == 0
    finally:
        second.kill()
    result = json.loads((tmp_path / "results" / "p" / "digits" / "rapid-4" / "0.json").read_text())
    assert result["notes"] == ["life 2: resumed"]
    assert [point["step"] for point in result["curve"]] == [0, 5, 10, 15, 20]
    assert all(set(point["pass_at"]) == {"1", "2"} for point in result["curve"])
    assert (result["steps"], result["samples"]) == (20, 1280)
    assert result["lag_max"] == 3
    # Each step draws at most 8 x 8 completions of 8 tokens at 600 tokens/s; the split covers the clock of both lives.
    assert sum(result["time_s"].values()) == pytest.approx(result["wall_s"], rel=0.25)
    assert result["time_s"]["generate"] > result["time_s"]["train"] > 0
    assert sorted(entry.name for entry in (tmp_path / "work" / "p").iterdir()) == [".locks", ".targets"]
    assert list((tmp_path / "work" / "p" / ".targets").iterdir()) == []


def begin(folder: Path) -> subprocess.Popen[bytes]:
    """The experiment, under way."""
    arguments = [str(folder / "p.toml"), "--results", str(folder / "results"), "--work", str(folder / "work")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen([sys.executable, "-m", "bench.rapid_table", *arguments], cwd=ROOT, env=environment)
