"""The commands that look at a run or at the machine, on a run of the scripted engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import rapid


@pytest.mark.slow
def test_a_run_that_is_over_tells_all_of_itself(start: Callable[..., Any]) -> None:
    run = start("told", "actors.engine=scripted", "schedule.steps=4")
    assert run.finish() == 0, run.output()
    assert not (run.folder / "hub.json").exists()
    ledger = rapid("ledger", "told", "--runs", str(run.folder.parent))
    assert ledger.returncode == 0, ledger.stderr
    assert "adds up" in ledger.stdout
    report = rapid("report", "told", "--runs", str(run.folder.parent))
    assert report.returncode == 0, report.stderr
    page = (run.folder / "report.html").read_text()
    assert "told" in page
    assert "tasks.examples.digits:Digits" in page


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path: Any) -> None:
    (tmp_path / "other" / "logs").mkdir(parents=True)
    for command in ("report", "ledger"):
        said = rapid(command, "missing", "--runs", str(tmp_path))
        assert said.returncode == 2
        assert "missing" in said.stderr
        assert "other" in said.stderr


def test_doctor_names_what_a_run_needs() -> None:
    said = rapid("doctor")
    assert said.returncode in (0, 1), said.stderr
    for subject in ("Python", "torch", "vllm", "deepspeed", "ray", "processor", "free memory", "GPU"):
        assert subject in said.stdout, said.stdout
