"""What a start refuses is refused by --dry-run, in the same words."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rapid.errors import UsageError
from rapid.models import prepare_model
from rapid.preflight import check_dry, check_ports, prepare
from rapid.recipe import load_recipe
from tasks.lean.stub import StubServer
from telemetry.run_dir import RunDirectory, locked
from tests.ports import quiet_port

TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny.toml"


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", quiet_port()))
        taken.listen()
        yield taken.getsockname()[1]


def refusal(check: Callable[..., Any], folder: Path, *overrides: str, resume: bool = False) -> str:
    config = load_recipe(TINY, [f"run.directory={folder}", "run.name=x", *overrides])
    with pytest.raises(UsageError) as caught:
        check(config, TINY, resume=resume)
    return str(caught.value)


def refused_alike(folder: Path, *overrides: str, resume: bool = False) -> str:
    """What both say."""
    start, dry = (refusal(check, folder, *overrides, resume=resume) for check in (prepare, check_dry))
    assert start == dry
    return start


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("actors.scaling=cluster", "actors.max=2"), "expected RAY_ADDRESS of a running cluster"),
        (("model.path=/nowhere/model",), "model.path"),
        (("model.max_context=9",), "model.max_context = 9: prompt 0 of the task has"),
        (("task.name=tests.nowhere:Task",), "tests.nowhere"),
        (
            ("run.directory=/dev/null/runs",),
            "run.directory: /dev/null is a file, expected a folder",
        ),
    ],
)
def test_what_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], said: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert said in refused_alike(tmp_path, *overrides)
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "RAY_ADDRESS = '127.0.0.1:1': nobody answers there" in refused_alike(tmp_path)


def test_a_transport_that_needs_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "weights.transport = 'nccl': expected GPUs" in refused_alike(tmp_path, "weights.transport=nccl")


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    assert "leave out --resume to begin it" in refused_alike(tmp_path, resume=True)
    run = RunDirectory.create(tmp_path / "x")
    run.write_config(load_recipe(TINY, []).model_dump(mode="json"))
    assert "holds no checkpoint" in refused_alike(tmp_path, resume=True)
    with locked(run.path):
        assert "is in use" in refused_alike(tmp_path, resume=True)
        assert "add --resume to go on with it" in refused_alike(tmp_path)


RECORDS = Path(__file__).resolve().parents[1] / "tasks" / "data" / "gsm8k.jsonl"
HELD_BACK = ("task.name=jsonl", f"task.path={RECORDS}", "task.answer_pattern=#### (.+)", "task.params={}")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (["task.eval.size=2"], ["task.eval.size=3"], "task.eval.size is 3, expected 2 as in x"),
        (["task.eval.size=2"], ["task.eval.size=2", "task.eval.seed=5"], "task.eval.seed is 5, expected 1000000000"),
        (["task.eval.size=2"], ["task.eval.size=2", f"task.eval.path={RECORDS}"], "task.eval.size is None, expected 2"),
        (["task.eval.size=2", f"task.eval.path={RECORDS}"], ["task.eval.size=2"], "task.eval.size is 2, expected None"),
    ],
)
def test_a_resume_does_not_evaluate_on_records_that_were_trained_on(
    tmp_path: Path, before: list[str], now: list[str], said: str
) -> None:
    run = RunDirectory.create(tmp_path / "x")
    run.write_config(load_recipe(TINY, [*HELD_BACK, *before]).model_dump(mode="json"))
    assert re.search(said, refused_alike(tmp_path, *HELD_BACK, *now, resume=True))


def test_a_resume_may_ask_otherwise_about_the_same_records(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "x")
    run.write_config(load_recipe(TINY, [*HELD_BACK, "task.eval.size=2"]).model_dump(mode="json"))
    others = ("task.eval.size=2", "task.eval.k=[1,2]", "task.eval.temperature=0.5", "model.max_context=2048")
    assert "holds no checkpoint" in refused_alike(tmp_path, *HELD_BACK, *others, resume=True)


def test_a_dry_run_notes_what_only_a_start_can_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPID_CACHE", str(tmp_path / "cache"))
    config = load_recipe(TINY, [f"run.directory={tmp_path}", "run.name=x"])
    (note,) = check_dry(config, TINY, resume=False)
    assert note.startswith("not checked: the length of the prompts, since the start fetches or makes the model")
    prepare(config, TINY, resume=False)
    assert check_dry(config, TINY, resume=False) == []


@pytest.mark.parametrize("name", ["math", "mbpp_plus", "minif2f"])
def test_a_dry_run_of_the_papers_recipes_without_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from huggingface_hub import HfApi

    asked = []

    def dataset_info(self: HfApi, path: str, timeout: float) -> None:
        asked.append(path)
        raise ConnectionError("no route")

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    monkeypatch.setenv("RAPID_CACHE", str(tmp_path / "cache"))
    path = TINY.parent / "paper" / f"{name}.toml"
    lean = StubServer()
    try:
        overrides = [f"task.params.server={lean.url}"] if name == "minif2f" else []
        config = load_recipe(path, [f"run.directory={tmp_path}", "model.path=tiny", *overrides])
        # With the model at hand nothing but the data is left to be fetched, which a dry run must not do.
        assert prepare_model("tiny").is_dir()
        notes = check_dry(config, path, resume=False)
    finally:
        lean.close()
    assert asked
    assert any("the Hugging Face hub cannot be reached" in note for note in notes)
    assert notes[-1].startswith("not checked: the length of the prompts")


def test_ports_are_tried_where_the_part_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with taken_port() as port:
        of_hub = load_recipe(TINY, [f"buffer.port={port}"])
        of_learner = load_recipe(TINY, [f"telemetry.port={port - 1}"])
        of_launcher = load_recipe(TINY, [f"telemetry.port={port - 2}"])
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        for config in (of_hub, of_learner, of_launcher):
            with pytest.raises(UsageError, match="address already in use"):
                check_ports(config)
        # On a cluster hub and learner may be elsewhere; the launcher is here.
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        check_ports(of_hub)
        check_ports(of_learner)
        with pytest.raises(UsageError, match="launcher-0 the port"):
            check_ports(of_launcher)
