"""gsm8k, math and minif2f by name: on the hub as published, and on files of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks import EvalConfig, TaskConfig, TaskError, build_task, difficulty_of, validate
from tasks.huggingface import source
from tasks.presets import MATH_SUBJECTS

DATA = Path(__file__).parent / "data"


def sources(name: str, **fields: Any) -> list[tuple[Any, ...]]:
    config = TaskConfig(name=name, **{"eval": EvalConfig(size=2), **fields})
    return [(found.path, found.subset, found.split) for found in (source(config, "train"), source(config, "eval"))]


def test_each_name_takes_the_public_data_set() -> None:
    assert sources("gsm8k") == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]
    assert sources("math") == [
        ("EleutherAI/hendrycks_math", list(MATH_SUBJECTS), "train"),
        ("HuggingFaceH4/MATH-500", None, "test"),
    ]
    assert sources("minif2f") == [
        ("cat-searcher/minif2f-lean4", None, "validation"),
        ("cat-searcher/minif2f-lean4", None, "test"),
    ]


def test_what_the_user_writes_comes_first() -> None:
    config = TaskConfig(name="gsm8k", prompt_template="Q: {question}", answer="math_verify", subset="socratic")
    assert (config.prompt_template, config.answer, config.subset) == ("Q: {question}", "math_verify", "socratic")
    assert config.answer_pattern == "#### (.+)"
    assert sources("math", subset="algebra", eval=EvalConfig(path="EleutherAI/hendrycks_math", subset="algebra")) == [
        ("EleutherAI/hendrycks_math", "algebra", "train"),
        ("EleutherAI/hendrycks_math", "algebra", "train"),
    ]


def test_a_path_of_ones_own_takes_nothing_of_the_public_one() -> None:
    assert sources("gsm8k", path="train.jsonl", eval=EvalConfig(path="test.jsonl")) == [
        ("train.jsonl", None, "train"),
        ("test.jsonl", None, "train"),
    ]
    assert TaskConfig(name="gsm8k", path="train.jsonl", eval=EvalConfig()).eval == EvalConfig()


@pytest.mark.parametrize("name", ["gsm8k", "math", "minif2f"])
@pytest.mark.parametrize("path", [None, "own.jsonl"])
def test_a_resolved_preset_is_accepted_again(name: str, path: str | None) -> None:
    fields = {} if path is None else {"path": path}
    config = TaskConfig(name=name, eval=EvalConfig(size=8), **fields)
    assert TaskConfig(**config.model_dump()) == config
    assert TaskConfig.model_validate_json(config.model_dump_json()) == config


def test_gsm8k_counts_the_steps_of_the_solution() -> None:
    task = build_task(TaskConfig(name="gsm8k", path=str(DATA / "gsm8k.jsonl"), eval=EvalConfig(size=3)))
    rows = [json.loads(line) for line in (DATA / "gsm8k.jsonl").read_text().splitlines()]
    steps = {row["question"]: str(len(row["answer"].splitlines()) - 1) for row in rows}
    assert len(task) == 5
    for index in range(len(task)):
        question = (
            task.prompt(index)
            .messages[0]["content"]
            .removesuffix("\nThink step by step. End with the answer as a number.")
        )
        assert difficulty_of(task, index) == steps[question]


def test_math_asks_for_a_box_and_takes_the_last_one_of_the_solution() -> None:
    task = build_task(TaskConfig(name="math", path=str(DATA / "math.jsonl")))
    prompts = [task.prompt(index) for index in range(len(task))]
    assert [prompt.reference for prompt in prompts] == ["8", "\\frac{1}{2}", "2\\sqrt{3}", "[-2,2]", "(1,3)"]
    assert prompts[0].messages[0]["content"].endswith("put the final answer within \\boxed{}.")
    assert [difficulty_of(task, index) for index in (0, 4)] == ["Level 1", "Level 5"]
    assert task.reward(prompts[1], "So $x=\\boxed{0.5}$.") == 1.0
    assert task.reward(prompts[1], "So $x=0.5$.") == 0.0
    by_subject = build_task(TaskConfig(name="math", path=str(DATA / "math.jsonl"), difficulty_field="type"))
    assert difficulty_of(by_subject, 4) == "Geometry"


def test_a_bare_answer_field_is_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"problem": "1+1", "answer": "2", "level": 1}))
    task = build_task(TaskConfig(name="math", path=str(file), answer_field="answer"))
    assert (task.prompt(0).reference, difficulty_of(task, 0)) == ("2", "1")


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("math", {"problem": "1+1", "level": 1}, 'task.answer_field is "solution", which .*rows.jsonl:2 does not have'),
        ("math", {"problem": "1+1", "solution": "2"}, 'task.difficulty_field is "level", which .*rows.jsonl:2'),
        ("math", {"problem": "1+1", "solution": "so \\boxed{2", "level": 1}, "rows.jsonl:2 has no answer"),
        ("gsm8k", {"question": "1+1", "answer": "2"}, "rows.jsonl:2 has the answer '2', in which task.answer_pattern"),
    ],
)
def test_a_record_that_lacks_something_is_named_by_its_line(
    tmp_path: Path, name: str, row: dict[str, Any], message: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n" + json.dumps(row))
    with pytest.raises(TaskError, match=message):
        validate(TaskConfig(name=name, path=str(file)))


def test_every_record_of_a_file_is_checked(tmp_path: Path) -> None:
    good = {"question": "1+1", "answer": "so #### 2"}
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([json.dumps(good)] * 200 + [json.dumps({"question": "2+2"})]))
    with pytest.raises(TaskError, match=r'task.answer_field is "answer", which .*rows.jsonl:201 does not have'):
        validate(TaskConfig(name="gsm8k", path=str(file)))


def test_records_are_chosen_by_the_field_that_names_their_split(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"{number}+1", "answer": number + 1, "part": "abc"[number % 3]} for number in range(9)]
    file.write_text("\n".join(map(json.dumps, rows)))
    fields: dict[str, Any] = {"name": "jsonl", "path": str(file), "split_field": "part"}
    config = TaskConfig(**fields, split="a", eval=EvalConfig(split="b"))
    references = [
        [task.prompt(index).reference for index in range(len(task))]
        for task in (build_task(config), build_task(config, "eval"))
    ]
    assert references == [["1", "4", "7"], ["2", "5", "8"]]
    held_back = TaskConfig(**fields, split="c", eval=EvalConfig(size=1))
    assert (len(build_task(held_back)), len(build_task(held_back, "eval"))) == (2, 1)
    with pytest.raises(TaskError, match=r'no record of .* has "train" in "part"; available: a, b, c'):
        build_task(TaskConfig(**fields))
    with pytest.raises(TaskError, match=r'task.split_field is "parts", which .*rows.jsonl:1 .*nearest: part'):
        build_task(TaskConfig(**{**fields, "split_field": "parts"}))
