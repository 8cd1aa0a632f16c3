"""Rewards that raise or never come cost their prompt, not the run, and the run says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("task", "reason"), [("Raising", "the judge is on strike"), ("Hanging", "took longer than 0.2 s")]
)
def test_prompts_whose_reward_fails_become_dead_letters_and_the_run_goes_on(
    start: Callable[..., Any], task: str, reason: str
) -> None:
    run = start(
        task.lower(),
        f"task.name=tests.e2e.tasks:{task}",
        "actors.engine=scripted",
        "actors.reward_timeout_s=0.2",
        "buffer.max_attempts=2",
        "actors.group_size=4",
        "schedule.steps=6",
    )
    assert run.finish() == 0, run.output()
    assert run.records()[-1]["step"] == 6
    counts = json.loads((run.folder / "ledger" / "state.json").read_text())["ledger"]["counts"]
    assert counts["dead_letter"] > 0
    assert "groups failed" in run.output()
    assert "dead letters" in run.output()
    ledger = run.ledger()
    assert reason in ledger
    assert "adds up" in ledger
