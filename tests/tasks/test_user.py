"""Tasks of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tasks import EvalConfig, Prompt, Reward, TaskConfig, TaskError, build_task, validate
from tasks.task import as_reward

SOURCE = """
from tasks import Prompt

class Echo:
    name = "echo"
    def __init__(self, size=3, split="train"):
        self.size, self.split = size, split
    def __len__(self):
        return self.size
    def prompt(self, index):
        return Prompt.ask(f"{self.split} {index}")
    def reward(self, prompt, completion):
        return 1.0

def make(size):
    return Echo(size)

class Seeded(Echo):
    def __init__(self, seed, split="train"):
        super().__init__(3, f"{split} {seed}")

class Namespace:
    inner = Echo(7)

ready = Echo(5)
half = object()

class Broken(Echo):
    def __init__(self):
        raise OSError("data gone")

class BadPrompt(Echo):
    def prompt(self, index):
        return 1 / 0

class TextPrompt(Echo):
    def prompt(self, index):
        return "what?"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, which is not on the module path."""
    name = "rapid_test_echo"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / "raising_on_import.py").write_text("import no_such_library")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for each in (name, "raising_on_import"):
        monkeypatch.delitem(sys.modules, each, raising=False)
    return name


def config_of(name: str, **fields: Any) -> TaskConfig:
    return TaskConfig(name=name, **fields)


@pytest.mark.parametrize(
    ("path", "params", "length"),
    [("Echo", {}, 3), ("Echo", {"size": 4}, 4), ("make", {"size": 6}, 6), ("ready", {}, 5), ("Namespace.inner", {}, 7)],
)
def test_classes_functions_and_objects_are_tasks(module: str, path: str, params: dict[str, Any], length: int) -> None:
    config = config_of(f"{module}:{path}", params=params)
    assert validate(config) == []
    assert len(build_task(config)) == length


def test_split_reaches_those_who_take_it(module: str) -> None:
    config = config_of(f"{module}:Echo", eval=EvalConfig(size=2))
    assert build_task(config).prompt(0).messages[0]["content"] == "train 0"
    held = build_task(config, "eval")
    assert (len(held), held.prompt(0).messages[0]["content"]) == (2, "eval 0")


def test_the_seeds_reach_those_who_take_one(module: str) -> None:
    def first(split: Any, **fields: Any) -> str:
        config = config_of(f"{module}:Seeded", seed=7, eval=EvalConfig(seed=8), **fields)
        return str(build_task(config, split).prompt(0).messages[0]["content"])

    assert (first("train"), first("eval")) == ("train 7 0", "eval 8 0")
    assert first("eval", params={"seed": 9}) == "eval 9 0"


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("Ecko", {}, r"has no Ecko; nearest: Echo"),
        ("Echo", {"params": {"sise": 3}}, r"takes \(size, split\): got an unexpected keyword argument 'sise'"),
        ("make", {}, "missing a required argument: 'size'"),
        (
            "make",
            {"params": {"size": 2}, "eval": EvalConfig()},
            "makes no evaluation prompts: give it a parameter split",
        ),
        ("ready", {"params": {"size": 2}}, "is a finished task that takes none"),
        ("ready", {"seed": 2}, "task.seed is 2, but .* takes no seed"),
        ("Echo", {"seed": 2}, "task.seed is 2, but .* takes no seed"),
        ("Echo", {"eval": EvalConfig(seed=2)}, "task.eval.seed is 2, but .* takes no seed"),
        ("half", {}, "is a object without name, __len__, prompt, reward"),
        ("Echo", {"params": {"size": 0}}, "has no prompts"),
        ("Broken", {}, "building the task .* failed: OSError: data gone"),
        ("BadPrompt", {}, "prompt 0 of task .* failed: ZeroDivisionError"),
        ("TextPrompt", {}, r"prompt 0 of task .* is a str; expected a tasks.Prompt"),
    ],
)
def test_mistakes_are_named(module: str, path: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        validate(config_of(f"{module}:{path}", **fields))


def test_a_missing_module_names_the_nearest_file(module: str) -> None:
    with pytest.raises(TaskError, match=f"no module rapid_tst_echo is installed or in .*; nearest: {module}"):
        validate(config_of("rapid_tst_echo:Echo"))
    with pytest.raises(TaskError, match="importing it failed: No module named 'no_such_library'"):
        validate(config_of("raising_on_import:Echo"))


def test_prompts_check_themselves() -> None:
    assert Prompt.ask("hi", 3) == Prompt([{"role": "user", "content": "hi"}], 3)
    for messages, message in (
        ([], "has no messages"),
        ([{"role": "user"}], "exactly the keys role and content"),
        ([{"role": "human", "content": "hi"}], "has role 'human'; expected one of system"),
        ([{"role": "user", "content": None}], "content of type NoneType; expected text"),
    ):
        with pytest.raises(TaskError, match=message):
            Prompt(messages)


def test_rewards_are_finite_numbers() -> None:
    assert as_reward(True) == Reward(1.0)
    assert as_reward(Reward(2, {"a": 1})) == Reward(2.0, {"a": 1.0})
    for value in (float("nan"), float("inf"), None, "1", [1.0], Reward(float("nan")), Reward(1.0, {"a": float("inf")})):
        with pytest.raises(ValueError, match="expected a finite number"):
            as_reward(value)
