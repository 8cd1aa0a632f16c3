"""The four data sets, on some of their records: reading, splits, prompts, and the judging of programs."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.mutants import mutants
from tasks import TaskConfig, TaskError, build_task, check_judging, validate
from tasks.code.build import build as build_code
from tasks.code.build import plus_split
from tasks.code.problems import FORMATS
from tasks.code.task import CodeTask
from tasks.huggingface import Source
from tasks.jsonl import read_rows
from tasks.records import ChosenRows
from tasks.runner import RewardRunner
from tasks.sandbox import Limits

DATA = Path(__file__).parent.parent / "data"
NULL = object()  # A field that is there and holds nothing, where None stands for one that is missing.
NAMES = ("mbpp", "mbpp_plus", "humaneval", "humaneval_plus")


def config(name: str, **fields: Any) -> TaskConfig:
    return TaskConfig(name=name, path=str(DATA / f"{name}.jsonl"), **fields)


@pytest.fixture(scope="module", params=NAMES)
def task(request: pytest.FixtureRequest) -> Any:
    rows = read_rows(DATA / f"{request.param}.jsonl")
    limits = Limits(time_s=20.0)
    task = CodeTask(request.param, FORMATS[request.param], ChosenRows(rows, range(len(rows)), "rows"), limits, "auto")
    yield task
    task.close()


def test_every_records_own_program_gets_1(task: CodeTask) -> None:
    rewards = [
        task.reward(task.prompt(index), f"```python\n{task.solution(index)}\n```").value for index in range(len(task))
    ]
    assert rewards == [1.0] * len(task)


def test_mutants_get_0(task: CodeTask) -> None:
    passed = [
        (index, kind)
        for index in range(len(task))
        for kind, mutant in mutants(task.solution(index), task.suite(index).names).items()
        if task.judge(index, mutant).passed
    ]
    # An equivalent program: the tests of MBPP 367 balance trees whose heights differ by more than two.
    assert [entry for entry in passed if entry[1].startswith("return")] == []
    assert len(passed) <= 2


def test_a_completion_without_a_program_gets_0(task: CodeTask) -> None:
    for completion in ("", "I cannot do that.", "```python\n```", "\x00", "\ud800"):
        assert task.reward(task.prompt(0), completion).value == 0.0


def test_the_prompt_of_mbpp_is_a_docstring_with_the_first_assertion() -> None:
    prompt = build_task(config("mbpp_plus")).prompt
    texts = [prompt(index).messages[0]["content"] for index in range(4)]
    assert all(text.startswith('"""\nWrite') and text.count("assert ") == 1 for text in texts)
    assert all(text.endswith('\n"""\n') for text in texts)


def test_the_prompt_of_humaneval_is_the_head_and_may_be_wrapped() -> None:
    task = build_task(config("humaneval", prompt_template="Complete:\n{question}"))
    assert task.prompt(0).messages[0]["content"].startswith("Complete:\nfrom typing import List\n\n\ndef has_close")


def test_mbpp_is_split_by_the_numbers_of_its_problems() -> None:
    both = config("mbpp", eval={"size": 10})
    assert len(build_task(both)) == 3  # 601, 602, 604
    assert len(build_task(both, "eval")) == 3  # 11, 126, 367
    assert len(build_task(config("mbpp", eval={"split": "prompt"}), "eval")) == 1  # 2


def test_mbpp_plus_is_split_as_datasets_would() -> None:
    datasets = pytest.importorskip("datasets")
    split = datasets.Dataset.from_dict({"i": list(range(378))}).train_test_split(test_size=0.3, seed=42)
    train, held = plus_split(378)
    assert (len(train), len(held)) == (264, 114)
    assert train == split["train"]["i"]
    assert held == split["test"]["i"]


@pytest.mark.parametrize(
    ("name", "train", "held"),
    [
        ("mbpp", ("google-research-datasets/mbpp", "full", "train"), ("google-research-datasets/mbpp", "full", "test")),
        ("mbpp_plus", ("evalplus/mbppplus", None, "test"), ("evalplus/mbppplus", None, "test")),
        ("humaneval", ("openai/openai_humaneval", None, "test"), ("openai/openai_humaneval", None, "test")),
        ("humaneval_plus", ("evalplus/humanevalplus", None, "test"), ("evalplus/humanevalplus", None, "test")),
    ],
)
def test_without_a_path_the_hubs_data_set_is_read(
    name: str, train: tuple[str, str | None, str], held: tuple[str, str | None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(origin: Source) -> list[dict[str, Any]]:
        asked.append(origin)
        return list(read_rows(DATA / f"{name}.jsonl"))

    monkeypatch.setattr("tasks.code.build.load_rows", load)
    both = TaskConfig(name=name, eval={"size": 2})
    build_code(both, "train").prompt(0)
    build_code(both, "eval").prompt(0)
    assert asked == [Source(*train), Source(*held)]


def test_training_and_evaluation_share_no_problem() -> None:
    for name in ("mbpp_plus", "humaneval"):
        both = config(name, eval={"size": 2})
        train, held = build_task(both), build_task(both, "eval")
        texts = {train.prompt(index).messages[0]["content"] for index in range(len(train))}
        assert texts.isdisjoint({held.prompt(index).messages[0]["content"] for index in range(len(held))})


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("mbpp", "code", None, r'\.jsonl:3 has no field "code"; it has challenge_test_list, task_id'),
        ("mbpp", "text", None, r'\.jsonl:3 has no field "text"'),
        ("mbpp", "test_list", "assert", r':3 has str in the field "test_list"; expected an array'),
        ("mbpp", "test_list", [], r':3 has the field "test_list" \[\]; expected one or more texts'),
        ("mbpp_plus", "test", None, r':3 has no field "test"; it has code'),
        ("humaneval", "entry_point", None, r':3 has no field "entry_point"'),
        ("humaneval_plus", "prompt", 3, r':3 has int in the field "prompt"; expected text'),
        ("mbpp", "text", NULL, r':3 has NoneType in the field "text"; expected text'),
        ("mbpp", "text", 5, r':3 has int in the field "text"; expected text'),
        ("mbpp", "test_imports", NULL, r':3 has NoneType in the field "test_imports"; expected an array'),
        ("mbpp", "test_imports", "import re", r':3 has str in the field "test_imports"; expected an array'),
        ("mbpp", "test_imports", [5], r':3 has the field "test_imports" \[5\]; expected an array of texts'),
        ("mbpp", "test_setup_code", 5, r':3 has int in the field "test_setup_code"; expected text'),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_missing_field_is_named_with_file_and_line(
    tmp_path: Path, name: str, field: str, value: object, message: str, suffix: str
) -> None:
    rows = read_rows(DATA / f"{name}.jsonl")
    for row in rows:
        row["task_id"] = 601 if name == "mbpp" else row["task_id"]
    if value is None:
        del rows[1][field]
    else:
        rows[1][field] = None if value is NULL else value
    # The second record stands in the third line.
    text = "\n\n".join(json.dumps(row) for row in rows)
    file = tmp_path / f"records{suffix}"
    file.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    with pytest.raises(TaskError, match=message.replace(r"\.jsonl", suffix.replace(".", r"\."))):
        build_task(TaskConfig(name=name, path=str(file)))


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("mbpp", "code", "def f(:", ":3 has code or tests that are no Python"),
        ("mbpp", "code", "x = 1", ':3 has a program in the field "code" that defines nothing which its tests use'),
        ("mbpp", "test_list", ["assert f(1 =="], ":3 has code or tests that are no Python"),
        ("mbpp", "test_imports", ["import"], ":3 is no Python"),
        ("mbpp_plus", "test", "assert (", ":3 has code or tests that are no Python"),
        ("humaneval", "test", "def check(candidate): assert (", ":3 has a program or tests that are no Python"),
        ("humaneval", "test", "def other(candidate): pass", ":3 has the field \"test\", but no definition of 'check'"),
        ("humaneval", "entry_point", "g", ":3 has the field \"entry_point\", but no definition of 'g'"),
        ("humaneval_plus", "canonical_solution", "    return (", ":3 has a program or tests that are no Python"),
    ],
)
def test_tests_that_could_reward_nothing_are_named_at_the_start(
    tmp_path: Path, name: str, field: str, value: object, message: str
) -> None:
    rows = read_rows(DATA / f"{name}.jsonl")
    for row in rows:
        row["task_id"] = 601 if name == "mbpp" else row["task_id"]
    rows[1][field] = value
    file = tmp_path / "records.jsonl"
    file.write_text("\n\n".join(json.dumps(row) for row in rows))
    task = TaskConfig(name=name, path=str(file))
    for check in (validate, check_judging):
        with pytest.raises(TaskError, match=message):
            check(task)


def test_the_command_line_ends_with_status_2(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"prompt": "def f():", "test": "", "entry_point": "f"}\n')
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[model]\npath = "tiny"\n[task]\nname = "humaneval"\npath = "{file}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "rapid.cli", "train", str(recipe), "--dry-run"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert 'records.jsonl:1 has no field "canonical_solution"; it has entry_point, prompt, test' in said


def test_bubblewrap_that_is_demanded_and_missing_ends_with_status_2(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    path = DATA / "humaneval.jsonl"
    recipe.write_text(f'[model]\npath = "tiny"\n[task]\nname = "humaneval"\npath = "{path}"\nsandbox = "bubblewrap"\n')
    done = subprocess.run(
        [sys.executable, "-m", "rapid.cli", "train", str(recipe), "--dry-run"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PATH": "/nowhere"},
    )
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert 'task.sandbox is "bubblewrap", but bwrap is not installed; install bubblewrap' in said


def test_fields_of_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="answer_field"):
        config("mbpp", answer_field="code")
    with pytest.raises(ValueError, match="time_limit_s"):
        TaskConfig(name="jsonl", path="x.jsonl", time_limit_s=5.0)


def test_validation_says_what_the_other_way_does_not_contain() -> None:
    assert any("without bubblewrap" in note for note in validate(config("humaneval", sandbox="process")))


def test_rewards_come_from_reward_workers_and_the_sandbox_dies_with_them() -> None:
    """The limit marks the sandbox's processes: it stands in their command line."""
    limit = 2.25 + random.SystemRandom().random() * 1e-3
    solution = read_rows(DATA / "humaneval.jsonl")[1]["canonical_solution"]

    def marked() -> list[psutil.Process]:
        mark = f'"time_s": {limit}'
        return [each for each in psutil.process_iter(["cmdline"]) if mark in " ".join(each.info["cmdline"] or ())]

    async def run() -> list[float]:
        task = config("humaneval", time_limit_s=limit)
        async with RewardRunner(task, workers=1, timeout_s=30.0) as runner:
            outcomes = await runner.score(1, [solution, "    return 0.25\n", "    import os\n    os._exit(0)\n"])
            assert marked()
            worker = runner._workers[0]._link
            assert worker is not None
            worker._process.send_signal(signal.SIGKILL)
            deadline = time.monotonic() + 60.0
            while marked() and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            assert marked() == []
            outcomes += await runner.score(1, [solution])
        assert all(outcome.reward is not None for outcome in outcomes), outcomes
        return [outcome.reward.value for outcome in outcomes if outcome.reward is not None]

    assert asyncio.run(run()) == [1.0, 0.0, 0.0, 1.0]
    deadline = time.monotonic() + 60.0
    while marked() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked() == []
