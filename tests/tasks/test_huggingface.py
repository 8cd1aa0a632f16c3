"""Data sets of the Hugging Face hub: a folder stands for one, and a hub is played where one is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks import EvalConfig, TaskConfig, TaskError, build_task, validate
from tasks.errors import UnreachableError
from tasks.huggingface import check_exists


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with two splits, and a cache of its own."""
    import datasets

    path = tmp_path_factory.mktemp("sums")
    for split, numbers in (("train", range(200)), ("test", range(195, 205))):
        rows = [{"question": f"{number} + 1 =", "answer": f"#### {number + 1}"} for number in numbers]
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", path.parent / "cache")
        datasets.disable_progress_bars()
        yield path


def config_of(path: Path | str, **fields: Any) -> TaskConfig:
    return TaskConfig(**{"name": "huggingface", "path": str(path), "answer_pattern": "#### (.+)", **fields})


def test_splits_are_read_and_evaluation_questions_are_not_trained_on(folder: Path) -> None:
    config = config_of(folder, eval=EvalConfig(split="test", size=8))
    assert validate(config) == []
    train, held = build_task(config), build_task(config, "eval")
    assert (len(train), len(held)) == (200, 8)
    assert held.prompt(0).messages[0]["content"] == "195 + 1 ="
    # 195 … 199 are asked in the evaluation; the next that are not are those at the beginning.
    assert [train.prompt(index).reference for index in (194, 195, 199)] == ["195", "1", "1"]


def test_a_file_is_read_in_place_of_a_data_set(folder: Path) -> None:
    assert len(build_task(config_of(folder / "test.jsonl", subset="main"))) == 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "trian"}, r"cannot be loaded: Unknown split \"trian\". Should be one of \['train', 'test'\]"),
        ({"subset": "main"}, "BuilderConfig 'main' not found. Available: .*see task.path, task.subset"),
        (
            {"question_field": "prompt"},
            r'task.question_field is "prompt", which record 1 of .*; available: answer, quest',
        ),
        ({"answer_field": "answers"}, "nearest: answer"),
    ],
)
def test_mistakes_are_named(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        validate(config_of(folder, **fields))


def answer_with(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[str]:
    """Lets the hub answer every look-up with `error`, or with success. Returns the names that will be asked for."""
    from huggingface_hub import HfApi

    asked: list[str] = []

    def dataset_info(self: HfApi, name: str, timeout: float) -> None:
        asked.append(name)
        if error is not None:
            raise error

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    return asked


def not_found() -> Exception:
    from httpx2 import Request, Response
    from huggingface_hub.errors import RepositoryNotFoundError

    return RepositoryNotFoundError("404", response=Response(404, request=Request("GET", "https://hub")))


def test_a_name_is_looked_up_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer_with(monkeypatch, None)
    assert validate(config_of("owner/sums", eval=EvalConfig(path="owner/tests"))) == []
    assert sorted(asked) == ["owner/sums", "owner/tests"]


def test_a_name_that_the_hub_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, not_found())
    with pytest.raises(
        TaskError, match=r'task.path is "owner/sums", a data set that the Hugging Face hub does not have'
    ):
        validate(config_of("owner/sums"))


def test_without_a_connection_validate_notes_it_and_build_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    answer_with(monkeypatch, ConnectionError("no route"))
    (note,) = validate(config_of("owner/sums"))
    assert 'not checked: task.path is "owner/sums"' in note
    with pytest.raises(UnreachableError, match=r"connect, or .*set task.path to the file"):
        build_task(config_of("owner/sums"))


def test_a_folder_that_is_not_there_is_not_asked_for_on_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer_with(monkeypatch, None)
    with pytest.raises(TaskError, match=r"which does not exist; nearest: .*"):
        check_exists(config_of(folder.parent / "sumss"))
    assert asked == []
