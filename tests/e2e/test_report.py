"""What a run leaves for its report, and for trackers, with every part in a process of its own."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from typing import Any

import pytest

from telemetry.samples import read_samples
from telemetry.timeline import Span, read_timeline
from tests.e2e.conftest import rapid

pytestmark = pytest.mark.slow


def timeline(run: Any, part: str) -> list[Span]:
    return read_timeline(run.folder / "timeline" / f"{part}.jsonl")


def test_a_run_leaves_what_its_report_shows(start: Callable[..., Any]) -> None:
    run = start(
        "told",
        "actors.engine=scripted",
        "schedule.steps=12",
        "telemetry.samples_every=4",
        "telemetry.log_format=json",
    )
    assert run.finish() == 0, run.output()
    learner, actor = timeline(run, "learner-0"), timeline(run, "actor-0")
    assert [span.of for span in learner if span.what == "train"] == [f"step {step}" for step in range(1, 13)]
    assert {"wait", "load", "generate"} <= {span.what for span in actor}
    assert ("load", "weights 1.0") in {(span.what, span.of) for span in actor}
    # One clock: the actor generated before the learner trained, and both had ended when the launcher had.
    assert min(span.start_s for span in actor if span.what == "generate") < learner[-1].start_s
    samples = read_samples(run.folder / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [1, 1, 4, 4, 8, 8, 12, 12]
    assert all(sample["best"]["reward"] > sample["worst"]["reward"] for sample in samples)
    assert all(sum(span[0] for span in one["best"]["spans"]) == one["best"]["num_tokens"] for one in samples)
    environment = json.loads((run.folder / "environment.json").read_text())
    assert set(environment["parts"]) == {"learner", "actor"}
    for path in (run.folder / "logs").glob("*.log"):
        assert all(json.loads(line)["part"] == path.stem for line in path.read_text().splitlines())
    answer = rapid("report", str(run.folder))
    assert answer.returncode == 0, answer.stderr
    assert 'id="timeline"' in (run.folder / "report.html").read_text()
    run.wait_for_no_process()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None or importlib.util.find_spec("wandb") is None,
    reason="trackers (requirements/trackers.txt) are not installed",
)
def test_trackers_get_every_step_and_go_on_after_a_resume(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    trackers = 'telemetry.trackers=["tensorboard","wandb"]'
    for steps, options in ((4, ()), (7, ("--resume",))):
        run = start("tracked", "actors.engine=scripted", trackers, f"schedule.steps={steps}", options=options)
        assert run.finish() == 0, run.output()
        assert "failed" not in run.output()
        run.wait_for_no_process()
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("rapid.learner/reward_mean")] == list(range(1, 8))
    kept = list(run.folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(kept) == 2
    assert len({path.name for path in kept}) == 1
