"""The held-out curve of a run's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.table.collect import ROOT, curve, without_machine


def evaluation(step: int) -> dict[str, Any]:
    return {"step": step, "incarnation": 1, "pass_at": {"1": {"mean": step / 10}}, "mean_reward": 0.5}


def test_time_and_samples_come_from_the_records_of_the_step() -> None:
    records = [{"step": step, "groups": 4} for step in (1, 2, 3)]
    # Step 9 was evaluated in a life whose steps were repeated and never came to it again.
    found = curve([evaluation(0), evaluation(2), evaluation(9)], records, [5.0, 11.0, 16.0], group_size=8, every=2)
    assert [(point["step"], point["wall_s"], point["samples"]) for point in found] == [(0, 0.0, 0), (2, 11.0, 64)]


def test_the_snapshot_of_an_interruption_is_no_point_of_the_curve() -> None:
    records = [{"step": step, "groups": 4} for step in range(1, 8)]
    found = curve([evaluation(step) for step in (0, 2, 3, 4, 7)], records, [float(s) for s in range(7)], 8, every=2)
    assert [point["step"] for point in found] == [0, 2, 4, 7]


def test_a_result_holds_no_path_of_the_machine() -> None:
    config = {"run": {"directory": f"{ROOT}/runs/x"}, "seeds": [1, f"{Path.home()}/.cache/model", "/big/disk/y"]}
    found = without_machine(config, {"/big/disk": "WORK"})
    assert found == {"run": {"directory": "runs/x"}, "seeds": [1, "~/.cache/model", "WORK/y"]}
