"""Snapshots of the weights, and what the learner has to do with evaluations."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from learner.checkpoint import check_resume, model_identity
from learner.evaluations import EvaluationInbox, LastEvaluation
from learner.loop import run_learner
from learner.scripted_hub import ScriptedHub
from learner.snapshots import SnapshotWriter, list_snapshots
from protocol.config import ScheduleConfig
from protocol.status import FleetStatus, Status
from protocol.version import Lineage, PolicyVersion
from telemetry.run_dir import RunDirectory
from tests.learner.learner_kit import learner_config, make_groups, make_model, make_settings

V = PolicyVersion


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("model"))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


class FakeEngine:
    """The weights of a model, as the trainer gives them."""

    def __init__(self, model_dir: Path) -> None:
        self.model = LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)

    def iter_weights(self) -> Any:
        return ((name, weight.detach()) for name, weight in self.model.named_parameters())


def steps(run_dir: Path) -> list[tuple[int, int]]:
    return [(version.incarnation, version.step) for version, _ in list_snapshots(run_dir)]


def train(model_dir: Path, run_dir: Path, num_steps: int, **changes: Any) -> ScriptedHub:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version), changes.pop("start", V(1, 0)))
    config = learner_config(snapshot_every=2, checkpoint_every=3)
    schedule = ScheduleConfig(steps=num_steps, max_staleness=8)
    try:
        run_learner(
            make_settings(run_dir, model_dir, hub.address, learner=config, schedule=schedule, **changes),
            threading.Event(),
        )
    finally:
        hub.close()
    return hub


def test_a_run_keeps_its_first_and_last_weights_and_every_nth_between(model_dir: Path, tmp_path: Path) -> None:
    hub = train(model_dir, tmp_path, 5)
    assert steps(tmp_path) == [(1, 0), (1, 2), (1, 4), (1, 5)]
    first, *_, last = (path for _, path in list_snapshots(tmp_path))
    begun = load_file(first / "model.safetensors")
    start = dict(LlamaForCausalLM.from_pretrained(model_dir).named_parameters())
    assert begun.keys() == start.keys()
    assert all(torch.equal(begun[name], start[name]) for name in begun)
    # The last are those of the checkpoint, and a folder that transformers opens.
    kept = LlamaForCausalLM.from_pretrained(tmp_path / "checkpoints" / "step-000005" / "model").state_dict()
    opened = LlamaForCausalLM.from_pretrained(last).state_dict()
    assert all(torch.equal(opened[name], kept[name]) for name in kept)
    assert not all(torch.equal(opened[name], start[name]) for name in start)
    assert (last / "tokenizer_config.json").is_file()
    assert hub.evaluation_due is None, "a run without an evaluator asks for no evaluation"


def test_a_resumed_run_supersedes_what_was_kept_beyond_its_checkpoint(model_dir: Path, tmp_path: Path) -> None:
    train(model_dir, tmp_path, 6)
    point = check_resume(
        tmp_path,
        model_path=str(model_dir),
        dtype="float32",
        identity=model_identity(model_dir),
        ranks=1,
        zero_stage=0,
        checkpoint=tmp_path / "checkpoints" / "step-000003",
    )
    unfinished = tmp_path / "snapshots" / "step-000099.tmp"
    unfinished.mkdir()
    train(model_dir, tmp_path, 5, resume_from=point.path, lineage=point.lineage, start=point.version)
    # Step 6 of the first life lies there still, and belongs to weights that are no more.
    assert steps(tmp_path) == [(1, 0), (1, 2), (2, 4), (2, 5)]
    assert not unfinished.exists()


def test_weights_are_written_in_the_models_dtype_as_they_were_when_offered(model_dir: Path, tmp_path: Path) -> None:
    engine = FakeEngine(model_dir)
    before = {name: weight.clone() for name, weight in engine.iter_weights()}
    writer = SnapshotWriter(tmp_path, model_dir, 5, writes=True)
    writer.offer(V(1, 5), engine)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in engine.model.parameters():
            parameter.zero_()
    writer.offer(V(1, 6), engine)  # type: ignore[arg-type]
    writer.close()
    assert steps(tmp_path) == [(1, 5)]
    ((_, folder),) = list_snapshots(tmp_path)
    found = load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in found.values()} == {torch.bfloat16}
    assert all(torch.equal(found[name], before[name]) for name in before)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert not list((tmp_path / "snapshots").glob("*.tmp"))


def test_a_disk_that_is_full_costs_the_snapshot_and_not_the_run(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = SnapshotWriter(tmp_path, model_dir, 1, writes=True)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)
        writer.offer(V(1, 1), FakeEngine(model_dir))  # type: ignore[arg-type]
        writer.wait()
    assert "No space left" in caplog.text
    writer.offer(V(1, 2), FakeEngine(model_dir))  # type: ignore[arg-type]
    writer.close()
    assert steps(tmp_path) == [(1, 2)]


def test_a_damaged_snapshot_is_passed_over(model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = SnapshotWriter(tmp_path, model_dir, 1, writes=True)
    for step in (1, 2):
        writer.offer(V(1, step), FakeEngine(model_dir))  # type: ignore[arg-type]
    writer.close()
    (tmp_path / "snapshots" / "step-000001" / "snapshot.json").write_text('{"format": 9}')
    assert steps(tmp_path) == [(1, 2)]
    assert "step-000001" in caplog.text


# --- evaluations ------------------------------------------------------------------------------------


def evaluation(step: int, incarnation: int = 1) -> dict[str, Any]:
    return {"step": step, "incarnation": incarnation, "wall_s": 3.0, "pass_at": {}, "mean_reward": 0.5}


def status(**changes: Any) -> Status:
    values: dict[str, Any] = {
        "version": V(1, 0), "lineage": Lineage(), "published": None, "ledger": {}, "opened": 0, "total": None,
        "lags": {}, "events": {}, "clients": [], "draining": False,
    }  # fmt: skip
    return Status(**(values | changes))


def test_each_result_goes_into_one_record_in_the_order_in_which_they_came() -> None:
    inbox = EvaluationInbox()
    assert inbox.take() is None
    inbox.look(status(evaluations=[evaluation(10), evaluation(20)]))
    inbox.look(status(evaluations=[evaluation(10), evaluation(20), evaluation(30)]))
    taken = [inbox.take() for _ in range(4)]
    assert [one and one["step"] for one in taken] == [10, 20, 30, None]
    assert "wall_s" not in (taken[0] or {}), "the record that tells it has a time of its own"


def test_the_end_waits_for_what_is_due_but_neither_for_ever_nor_for_an_evaluator_that_is_gone() -> None:
    gone = FleetStatus(wanted=1, running=1, is_evaluator_gone=True)
    assert LastEvaluation(60).is_awaited(status(evaluation_due=V(1, 4)))
    assert not LastEvaluation(60).is_awaited(status())
    assert not LastEvaluation(60).is_awaited(status(evaluation_due=V(1, 4), fleet=gone))
    assert not LastEvaluation(0).is_awaited(status(evaluation_due=V(1, 4)))


def test_a_run_ends_when_its_last_weights_are_evaluated_which_it_serves_until_then(
    model_dir: Path, tmp_path: Path
) -> None:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version))
    hub.evaluations = [evaluation(0)]
    settings = make_settings(
        tmp_path,
        model_dir,
        hub.address,
        schedule=ScheduleConfig(steps=3, broadcast_every=2, max_staleness=8),
        eval_wait_s=60.0,
    )
    running = threading.Thread(target=run_learner, args=(settings, threading.Event()))
    running.start()
    while ("evaluate last", "1.3") not in hub.events:
        assert running.is_alive()
        running.join(0.05)
    assert str(hub.manifests[-1].version) == "1.3", "published though it was not its turn"
    running.join(1.0)
    assert running.is_alive()
    hub.evaluation_due = None
    running.join(20)
    assert not running.is_alive()
    hub.close()
    told = [record["eval"] and record["eval"]["step"] for record in RunDirectory.open(tmp_path).read_metrics()]
    assert told == [0, None, None]


def test_a_run_that_is_told_to_stop_does_not_wait(model_dir: Path, tmp_path: Path) -> None:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version))
    stop = threading.Event()
    settings = make_settings(
        tmp_path, model_dir, hub.address, schedule=ScheduleConfig(steps=2, max_staleness=8), eval_wait_s=3600.0
    )
    running = threading.Thread(target=run_learner, args=(settings, stop))
    running.start()
    while ("evaluate last", "1.2") not in hub.events:
        running.join(0.05)
    stop.set()
    running.join(20)
    assert not running.is_alive()
    hub.close()
