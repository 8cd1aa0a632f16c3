"""What cannot work is refused before anything is started, with exit status 2 and nothing left behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import TINY, rapid


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
