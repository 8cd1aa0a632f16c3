from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from learner.checkpoint import (
    CheckpointInfo,
    ResumeError,
    begin,
    check_resume,
    claim_lineage,
    finish,
    list_checkpoints,
    model_identity,
    read_info,
    write_info,
)
from learner.scripted_hub import ScriptedHub
from protocol.config import ModelConfig, ScheduleConfig
from protocol.version import Lineage, PolicyVersion
from tests.learner.learner_kit import ROOT, learner_config, make_groups, make_model, make_settings

IDENTITY = {"model_type": "llama", "hidden_size": 32}
INFO = CheckpointInfo(
    version=PolicyVersion(1, 4),
    lineage=Lineage(),
    model_path="tiny",
    dtype="float32",
    identity=IDENTITY,
    ranks=1,
    zero_stage=0,
)


def write(run_dir: Path, version: PolicyVersion, lineage: Lineage = Lineage(), keep: int | None = None) -> Path:  # noqa: B008
    folder = begin(run_dir, version.step)
    write_info(folder, replace(INFO, version=version, lineage=lineage), {"entries": [1, 2]})
    return finish(folder, keep)


def check(run_dir: Path, **changes: object):
    values = {"model_path": "tiny", "dtype": "float32", "identity": IDENTITY, "ranks": 1, "zero_stage": 0}
    return check_resume(run_dir, **(values | changes))


def test_resume_begins_a_new_incarnation_at_the_newest_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, PolicyVersion(1, 2))
    newest = write(tmp_path, PolicyVersion(1, 4))
    point = check(tmp_path)
    assert point.path == newest
    assert point.version == PolicyVersion(2, 4)
    assert point.lineage == Lineage((4,))
    assert point.ledger == {"entries": [1, 2]}


def test_resume_from_an_older_checkpoint_takes_its_step(tmp_path: Path) -> None:
    older = write(tmp_path, PolicyVersion(1, 2))
    write(tmp_path, PolicyVersion(1, 4))
    assert check(tmp_path, checkpoint=older).version == PolicyVersion(2, 2)


def test_an_incarnation_that_left_no_checkpoint_is_not_named_again(tmp_path: Path) -> None:
    write(tmp_path, PolicyVersion(1, 4))
    claim_lineage(tmp_path, Lineage((4,)))
    assert check(tmp_path).version == PolicyVersion(3, 4)
    assert check(tmp_path).lineage == Lineage((4, 4))


def test_the_newest_checkpoint_is_that_of_the_newest_incarnation(tmp_path: Path) -> None:
    write(tmp_path, PolicyVersion(1, 6))
    resumed = write(tmp_path, PolicyVersion(2, 5), Lineage((4,)))
    assert check(tmp_path).path == resumed


def test_old_checkpoints_are_removed_beyond_the_number_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write(tmp_path, PolicyVersion(1, step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000004", "step-000006"]


def test_a_checkpoint_that_was_not_finished_is_not_seen(tmp_path: Path) -> None:
    write(tmp_path, PolicyVersion(1, 2))
    begin(tmp_path, 4)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002"]


def test_what_a_dead_learner_left_of_a_checkpoint_is_removed_by_the_next(tmp_path: Path) -> None:
    (begin(tmp_path, 4) / "torn").write_text("")
    claim_lineage(tmp_path, Lineage((2,)))
    path = write(tmp_path, PolicyVersion(2, 4), Lineage((2,)))
    assert not (path / "torn").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": {"model_type": "llama", "hidden_size": 64}}, r"hidden_size is 64, expected 32"),
        ({"identity": {"model_type": "qwen2", "hidden_size": 32}}, r"model_type is 'qwen2', expected 'llama'"),
        ({"model_path": "other"}, r"model\.path is 'other', expected 'tiny'"),
        ({"dtype": "bfloat16"}, r"model\.dtype is 'bfloat16', expected 'float32'"),
        ({"ranks": 2}, r"learner\.ranks is 2, expected 1"),
        ({"zero_stage": 3}, r"learner\.zero_stage is 3, expected 0"),
    ],
)
def test_a_resume_with_something_else_is_refused_with_the_remedy(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    write(tmp_path, PolicyVersion(1, 2))
    with pytest.raises(ResumeError, match=message + r".*: resume with the configuration of that run"):
        check(tmp_path, **changes)


def test_a_run_without_a_checkpoint_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match=r"holds no checkpoint that can be read.*begin anew under another --run NAME"):
        check(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 9}', '{"format": 1, "version": "x"}'])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, path = write(tmp_path, PolicyVersion(1, 2)), write(tmp_path, PolicyVersion(1, 4))
    (path / "learner.json").write_text(damage)
    assert check(tmp_path).path == older
    assert "learner.json" in caplog.text
    (older / "learner.json").write_text(damage)
    with pytest.raises(ResumeError, match="holds no checkpoint that can be read"):
        check(tmp_path)


def test_the_check_needs_no_torch() -> None:
    code = "import learner.checkpoint, learner.settings, sys; print({'torch', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n"


# --- with training ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def train(
    run_dir: Path, model_dir: Path, steps: int, *, resume: bool = False, broadcast_every: int = 1, **changes: object
) -> tuple[Path, ScriptedHub]:
    """Train until `steps` on scripted batches; the folder of the last checkpoint, and the hub that saw it."""
    from learner.loop import run_learner

    start = {}
    dtype = changes.get("model", ModelConfig(path=str(model_dir), dtype="float32")).dtype
    config = changes.get("learner", learner_config())
    if resume:
        point = check_resume(
            run_dir,
            model_path=str(model_dir),
            dtype=dtype,
            identity=model_identity(model_dir),
            ranks=1,
            zero_stage=config.zero_stage,
        )
        start = {"resume_from": point.path, "lineage": point.lineage}
    version = point.version if resume else PolicyVersion(1, 0)
    hub = ScriptedHub(lambda version: make_groups(model_dir, version), version)
    schedule = ScheduleConfig(steps=steps, max_staleness=8, broadcast_every=broadcast_every)
    try:
        run_learner(
            make_settings(run_dir, model_dir, hub.address, schedule=schedule, **start, **changes), threading.Event()
        )
    finally:
        hub.close()
    return list_checkpoints(run_dir)[-1], hub


def published(hub: ScriptedHub) -> list[str]:
    return [str(manifest.version) for manifest in hub.manifests]


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(checkpoint / "model", dtype="auto")
    return dict(model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "stage"), [("float32", 0), ("float32", 2), ("bfloat16", 0), ("bfloat16", 3)])
def test_a_resumed_run_equals_one_that_never_stopped_bit_for_bit(
    dtype: str, stage: int, model_dir: Path, tmp_path: Path
) -> None:
    # 1e-4 is far below the spacing of bfloat16 weights, so that only float32 master weights carry it.
    changes = {
        "model": ModelConfig(path=str(model_dir), dtype=dtype),
        "learner": learner_config(zero_stage=stage, lr=1e-2 if dtype == "float32" else 1e-4, warmup_steps=3),
    }
    straight, _ = train(tmp_path / "straight", model_dir, 4, **changes)
    train(tmp_path / "resumed", model_dir, 2, **changes)
    resumed, _ = train(tmp_path / "resumed", model_dir, 4, resume=True, **changes)
    expected, got = weights_of(straight), weights_of(resumed)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    rank = "optimizer-rank0.safetensors"
    assert (straight / rank).read_bytes() == (resumed / rank).read_bytes()
    assert read_info(resumed).version == PolicyVersion(2, 4)


@pytest.mark.slow
def test_a_checkpoint_holds_what_transformers_and_a_resume_need(model_dir: Path, tmp_path: Path) -> None:
    (model_dir / "tokenizer_config.json").write_text("{}")
    path, _ = train(tmp_path, model_dir, 2)
    assert {entry.name for entry in path.iterdir()} == {
        "model",
        "learner.json",
        "ledger.json",
        "optimizer-rank0.safetensors",
    }
    assert (path / "model" / "tokenizer_config.json").exists()
    assert json.loads((path / "ledger.json").read_text()) == {"version": "1.2"}
    model = AutoModelForCausalLM.from_pretrained(path / "model")
    before = AutoModelForCausalLM.from_pretrained(model_dir)
    assert not torch.equal(model.get_input_embeddings().weight, before.get_input_embeddings().weight)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.slow
def test_a_resumed_run_broadcasts_at_once_and_then_every_h_steps(model_dir: Path, tmp_path: Path) -> None:
    _, before = train(tmp_path, model_dir, 3, broadcast_every=2)
    _, after = train(tmp_path, model_dir, 6, broadcast_every=2, resume=True)
    assert published(before) == ["1.0", "1.2"]
    assert published(after) == ["2.3", "2.5"]


@pytest.mark.slow
def test_a_resumed_learner_tells_its_new_hub_of_the_steps_before(model_dir: Path, tmp_path: Path) -> None:
    train(tmp_path, model_dir, 2)
    _, hub = train(tmp_path, model_dir, 3, resume=True)
    assert [(record["incarnation"], record["step"]) for record in hub.records] == [(1, 1), (1, 2), (2, 3)]
