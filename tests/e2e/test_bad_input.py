"""What cannot work is refused before anything is started, with exit status 2 and nothing left behind."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from telemetry.run_dir import RunDirectory, locked
from tests.e2e.conftest import TINY, rapid
from tests.ports import quiet_port


def refused(tmp_path: Path, *arguments: str) -> str:
    answer = rapid("train", TINY, "--set", f"run.directory={tmp_path}", *arguments)
    assert answer.returncode == 2, answer.stdout + answer.stderr
    return answer.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner.batch_group=8", "did you mean learner.batch_groups"),
        ("learner.lr=fast", "learner.lr"),
        ("schedule.broadcast_every=9", "schedule"),
        ("learner.ranks=3", "batch_groups"),
        ("task.dataset=chain_sun", "chain_sum"),
        ("model.path=/nowhere/model", "model.path"),
        ("model.max_context=9", "model.max_context = 9"),
    ],
)
def test_a_configuration_that_cannot_work(tmp_path: Path, override: str, said: str) -> None:
    extra = ("--set", "schedule.max_staleness=1") if override.startswith("schedule") else ()
    if override.startswith("task"):
        extra = ("--set", "task.name=reasoning_gym", "--set", "task.params={}")
    assert said in refused(tmp_path, "--run", "x", "--set", override, *extra)
    assert not (tmp_path / "x").exists()


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"buffer.port = {port}" in refused(tmp_path, "--run", "x", "--set", f"buffer.port={port}")


def test_a_taken_port_of_the_metrics(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", quiet_port()))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(tmp_path, "--run", "x", "--set", f"telemetry.port={port - 1}")
        assert f"learner-0 the port {port}: address already in use" in said


def test_a_tracker_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    # No login is to be found here; where the package is missing too, that is what is said.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    said = refused(tmp_path, "--run", "x", "--set", 'telemetry.trackers=["wandb"]')
    assert 'telemetry.trackers names "wandb"' in said
    assert "WANDB_MODE=offline" in said or "pip install" in said
    assert not (tmp_path / "x").exists()


def test_actors_that_are_to_follow_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    folder, wish = f"run.directory={tmp_path}", ("--set", "actors.scaling=cluster", "--set", "actors.max=2")
    said = rapid("train", TINY, "--set", folder, *wish, RAY_ADDRESS="")
    assert said.returncode == 2
    assert "expected RAY_ADDRESS of a running cluster" in said.stderr
    assert not list(tmp_path.iterdir())


def test_weights_between_gpus_that_are_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there are GPUs here")
    said = refused(tmp_path, "--run", "x", "--set", "weights.transport=nccl")
    assert "weights.transport = 'nccl'" in said
    assert "'zmq'" in said


@pytest.mark.slow
def test_a_resume_that_would_mix_two_runs(start: Callable[..., Any], tmp_path: Path) -> None:
    run = start("x", "schedule.steps=2", "actors.engine=scripted")
    assert run.finish() == 0, run.output()
    before = (tmp_path / "x" / "config.json").read_text()
    for override, said in (
        ("task.name=tests.e2e.tasks:Raising", "task.name is 'tests.e2e.tasks:Raising', expected"),
        ("run.seed=5", "seed"),
        ("model.dtype=float32", "model.dtype is 'float32', expected 'bfloat16'"),
        ("buffer.shuffle=false", "shuffle"),
    ):
        answer = refused(tmp_path, "--run", "x", "--resume", "--set", override)
        assert said in answer, answer
    assert (tmp_path / "x" / "config.json").read_text() == before


def test_a_run_under_way_cannot_be_resumed(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "x")
    with locked(run.path):
        assert "is in use" in refused(tmp_path, "--run", "x", "--resume")


def test_a_folder_that_exists_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert "add --resume" in refused(tmp_path, "--run", "x")
    assert list((tmp_path / "x").iterdir()) == []


def test_a_run_that_is_not_there_cannot_be_resumed(tmp_path: Path) -> None:
    assert "no folder" in refused(tmp_path, "--run", "x", "--resume")
    assert "--run NAME" in refused(tmp_path, "--resume")


def test_dry_run_prints_the_configuration_and_starts_nothing(tmp_path: Path) -> None:
    answer = rapid("train", TINY, "--dry-run", "--set", f"run.directory={tmp_path}", "--run", "x")
    assert answer.returncode == 0, answer.stderr
    assert '"max_staleness": 2' in answer.stdout
    assert list(tmp_path.iterdir()) == []
