"""The difficulty of a prompt is that of the prompt that is asked, whatever stands between it and its task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks import EvalConfig, TaskConfig, TaskError, build_task, difficulty_of

ROWS = [
    {"question": f"{number} + 1 =", "answer": number + 1, "kind": "odd" if number % 2 else "even"}
    for number in range(6)
]


def write_rows(file: Path, rows: list[dict[str, object]]) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_a_prompt_in_place_of_a_held_out_one_tells_its_own(tmp_path: Path) -> None:
    own = write_rows(tmp_path / "eval.jsonl", ROWS[2:3])
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    config = TaskConfig(name="jsonl", path=path, difficulty_field="kind", eval=EvalConfig(path=own), limit=4)
    task = build_task(config)
    # Record 2 is in the evaluation, so record 3 stands in for it.
    assert [task.prompt(index).reference for index in range(4)] == ["1", "2", "4", "4"]
    assert [difficulty_of(task, index) for index in range(4)] == ["even", "odd", "odd", "odd"]
    assert difficulty_of(build_task(config, "eval"), 0) == "even"
    with pytest.raises(TaskError, match="has no prompt 4"):
        difficulty_of(task, 4)


def test_matches_in_the_field_are_counted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"question": "?", "answer": 1, "steps": "a; b; c"}])
    config = TaskConfig(name="jsonl", path=path, difficulty_field="steps", difficulty_count="[a-z]")
    assert difficulty_of(build_task(config), 0) == "3"


def test_a_task_without_difficulties_has_none(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    assert difficulty_of(build_task(TaskConfig(name="jsonl", path=path)), 0) is None
    assert difficulty_of(build_task(TaskConfig(name="tasks.examples.reverse:Reverse")), 0) is None


def test_a_generated_data_set_tells_its_dials() -> None:
    params = {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 3}
    task = build_task(TaskConfig(name="reasoning_gym", dataset="chain_sum", params=params, size=20))
    difficulties = {difficulty_of(task, index) for index in range(20)}
    assert "num_terms 3, num_digits 2" in difficulties
    assert len(difficulties) > 4
