"""Records from files, and prompts made of records."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tasks import EvalConfig, TaskConfig, TaskError, build_task, validate

GSM8K = Path(__file__).parent / "data" / "gsm8k.jsonl"
ROWS = [{"question": f"{number} + 1 =", "answer": str(number + 1)} for number in range(10)]


def write_rows(file: Path, rows: list[Any]) -> Path:
    text = json.dumps(rows) if ".jsonl" not in file.name else "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def config_of(file: Path, **fields: Any) -> TaskConfig:
    return TaskConfig(name="jsonl", path=str(file), **fields)


def questions(config: TaskConfig, split: Any = "train") -> list[str]:
    task = build_task(config, split)
    return [task.prompt(index).messages[0]["content"] for index in range(len(task))]


def test_gsm8k_is_judged_by_the_number_after_its_mark() -> None:
    config = config_of(GSM8K, answer_pattern="#### (.+)", prompt_template="{question}\nThe \\boxed{number} only.")
    task = build_task(config)
    prompt = task.prompt(0)
    assert len(task) == 8
    assert prompt.reference == "18"
    assert prompt.messages[0]["content"].endswith("farmers' market?\nThe \\boxed{number} only.")
    assert [task.reward(prompt, text) for text in ("She makes $18.00 a day.", "9 eggs", "")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("answer", ["boxed", "math_verify"])
@pytest.mark.parametrize("name", ["jsonl", "huggingface"])
def test_a_judge_that_is_not_installed_is_missed_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: Any
) -> None:
    config = TaskConfig(name=name, path=str(write_rows(tmp_path / "rows.jsonl", ROWS)), answer=answer)
    assert validate(config) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError, match=f'task.answer is "{answer}", which math-verify judges, but that is not'):
        validate(config)
    assert validate(config.model_copy(update={"answer": "exact"})) == []


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz"])
def test_each_kind_of_file_gives_the_same_prompts(tmp_path: Path, name: str) -> None:
    file = write_rows(tmp_path / name, ROWS)
    assert validate(config_of(file)) == []
    assert questions(config_of(file)) == [row["question"] for row in ROWS]


def test_blank_lines_a_byte_order_mark_and_line_separators_do_not_disturb(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('\ufeff{"question": "a\u2028b", "answer": 1}\r\n\n{"question": 2, "answer": 2.5}', encoding="utf-8")
    assert questions(config_of(file)) == ["a\u2028b", "2"]


def test_limit_takes_the_first_prompts(tmp_path: Path) -> None:
    assert questions(config_of(write_rows(tmp_path / "rows.jsonl", ROWS), limit=3)) == ["0 + 1 =", "1 + 1 =", "2 + 1 ="]


def test_an_evaluation_without_a_file_of_its_own_holds_records_back(tmp_path: Path) -> None:
    config = config_of(write_rows(tmp_path / "rows.jsonl", ROWS), eval=EvalConfig(size=4))
    train, held = questions(config), questions(config, "eval")
    assert (len(train), len(held)) == (6, 4)
    assert sorted(train + held) == [row["question"] for row in ROWS]


def test_a_question_of_the_evaluation_file_is_not_trained_on(tmp_path: Path) -> None:
    own = write_rows(tmp_path / "eval.jsonl", ROWS[3:5])
    config = config_of(write_rows(tmp_path / "rows.jsonl", ROWS), eval=EvalConfig(path=str(own)))
    assert questions(config, "eval") == ["3 + 1 =", "4 + 1 ="]
    # Records 3 and 4 are in the evaluation: the next one that is not, record 5, stands in for each.
    assert questions(config) == [f"{number} + 1 =" for number in (0, 1, 2, 5, 5, 5, 6, 7, 8, 9)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "rows.jsonl has no records"),
        ('{"question": 1}\n{"question"', "rows.jsonl:2 is not JSON"),
        ("[1]", "rows.jsonl:1 is list; expected an object"),
        ('{"question": "a", "answer": "1"}\n{"question": "b"}', r"rows.jsonl:2 does not have; available: question"),
        ('{"question": "a", "answr": "1"}', 'task.answer_field is "answer", which .*rows.jsonl:1 .*nearest: answr'),
        ('{"question": ["a"], "answer": "1"}', 'rows.jsonl:1 has list in "question"; expected text'),
        ('{"question": "a", "answer": "one"}', "holds no number"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(TaskError, match=message):
        validate(config_of(file))


def test_a_record_in_which_the_answer_pattern_finds_nothing_is_named() -> None:
    with pytest.raises(TaskError, match=r"gsm8k.jsonl:1 .*task.answer_pattern .*finds nothing"):
        validate(config_of(GSM8K, answer_pattern="Answer: (.+)"))


def test_a_missing_file_names_the_nearest_beside_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(TaskError, match=r"no file in .*; nearest: train.jsonl"):
        validate(config_of(tmp_path / "trian.jsonl"))
    with pytest.raises(TaskError, match=r"task.eval.path is .*nearest: train.jsonl"):
        validate(config_of(tmp_path / "train.jsonl", eval=EvalConfig(path=str(tmp_path / "tran.jsonl"))))
    with pytest.raises(TaskError, match="does not exist"):
        validate(config_of(tmp_path / "nowhere" / "train.jsonl"))
    with pytest.raises(TaskError, match=r"expected a file that ends in .jsonl"):
        validate(config_of(tmp_path / "train.csv"))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"question": "a", "answer": 1}\n' * 50)
    for name, data in {
        "cut.jsonl.gz": whole[:-9],
        "no.jsonl.gz": b"no gzip",
        "latin.jsonl": b'{"question": "\xe9"}',
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TaskError, match=f"{name} cannot be read"):
            validate(config_of(tmp_path / name))


def test_an_evaluation_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(TaskError, match=r"task.eval.size is 10, but .* has only 10 records"):
        validate(config_of(file, eval=EvalConfig(size=10)))
    with pytest.raises(TaskError, match=r"every prompt of .* is also an evaluation prompt"):
        validate(config_of(file, eval=EvalConfig(path=str(file))))


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(TaskError, match="has no prompt 8; it has 8"):
        build_task(config_of(GSM8K, answer_pattern="#### (.+)")).prompt(8)
    with pytest.raises(TaskError, match=r"task\.eval is missing"):
        build_task(config_of(GSM8K, answer_pattern="#### (.+)"), "eval")
