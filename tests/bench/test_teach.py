"""A tiny llama is taught, once for each specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.table.teach import NOTE, TeachError, TeachSpec, answer_of, taught_folder, teach
from tasks.config import TaskConfig

# One digit a number, so that the format is most of the task.
SUMS = {"name": "bench.table.puzzles:Sums", "params": {"digits": [1, 1]}, "eval": {"size": 10}}
SPEC = TeachSpec(layers=1, hidden=64, target=0.04, lr=3e-3, batch=64, right=0.5, steps=300, check_every=20)


def task(**changes: Any) -> TaskConfig:
    return TaskConfig.model_validate({**SUMS, **changes})


def test_the_folder_depends_on_what_is_taught_and_not_on_how_much_is_evaluated(tmp_path: Path) -> None:
    folder = taught_folder(SPEC, task(), tmp_path)
    assert taught_folder(SPEC, task(eval={"size": 99}), tmp_path) == folder
    assert taught_folder(SPEC, task(params={"digits": [2, 2]}), tmp_path) != folder
    assert taught_folder(SPEC.model_copy(update={"hidden": 96}), task(), tmp_path) != folder


@pytest.mark.slow
def test_teaching_ends_within_the_range_and_gives_the_same_weights_again(tmp_path: Path) -> None:
    said: list[str] = []
    first = teach(SPEC, task(), tmp_path / "a", said.append)
    note = json.loads((first / NOTE).read_text())
    assert 0.04 <= note["solved"] <= 0.30
    assert said[-1].endswith(f"solves {note['solved']:.3f}")
    count = len(said)
    assert teach(SPEC, task(), tmp_path / "a", said.append) == first
    assert len(said) == count
    again = teach(SPEC, task(), tmp_path / "b", said.append)
    assert json.loads((again / NOTE).read_text())["weights_sha256"] == note["weights_sha256"]


@pytest.mark.slow
def test_a_model_that_does_not_learn_is_told_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(TeachError, match=r"after 10 steps the model solves 0\.\d+, expected 0\.3"):
        teach(SPEC.model_copy(update={"steps": 10, "target": 0.3}), task(), tmp_path)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_the_right_answer_is_found_in_a_reference() -> None:
    assert answer_of("3*5") == "3*5"
    assert answer_of({"answer": "8", "metadata": 1}) == "8"
    with pytest.raises(TeachError, match="such a task cannot be taught"):
        answer_of(42)
