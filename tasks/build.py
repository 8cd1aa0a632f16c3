"""From a TaskConfig to a task."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal

from tasks.answers import check_judge
from tasks.config import CODE_TASKS, FIELDS_OF, JUDGED_FIELDS, TaskConfig
from tasks.errors import TaskError, UnreachableError
from tasks.split import First, HeldOut
from tasks.task import Prompt, Task, notes_of

Split = Literal["train", "eval"]
# Imported when used: reasoning-gym and datasets take a second each.
ADAPTERS = {
    "reasoning_gym": "tasks.reasoning_gym",
    "word_problems": "tasks.word_problems",
    "countdown": "tasks.countdown",
    "derivation": "tasks.derivation",
    "jsonl": "tasks.jsonl",
    "huggingface": "tasks.huggingface",
    "minif2f": "tasks.lean.task",
    "user": "tasks.user",
    **dict.fromkeys(CODE_TASKS, "tasks.code.build"),
}


def build_task(config: TaskConfig, split: Split = "train") -> Task:
    """The task's training or evaluation prompts. Raises TaskError when anything about it cannot be found or read."""
    adapter = importlib.import_module(ADAPTERS[config.kind])
    if split == "eval" and config.eval is None:
        raise TaskError("task.eval is missing; expected the section [task.eval], for example with size = 100")
    task: Task = adapter.build(config, split)
    if split == "eval" and config.eval is not None:
        task = First(task, config.eval.size)
    elif config.eval is not None:
        task = HeldOut(task, First(adapter.build(config, "eval"), config.eval.size))
    if split == "train" and config.limit is not None:
        task = First(task, config.limit)
    check_first_prompt(task, config.name)
    return task


def validate(config: TaskConfig) -> list[str]:
    """Checks all that can be checked within a few seconds and without a download.

    Raises TaskError when the task cannot work. Returns notes on what could not be checked here, such as a data set's
    existence without a connection to its hub; `build_task` will find out.
    """
    if config.is_code:
        from tasks.code.build import validate as validate_code

        return validate_code(config)
    check_judging(config)
    if config.kind == "minif2f":
        from tasks.lean.task import check_lean

        check_lean(config)
    if is_remote(config):
        from tasks.huggingface import check_exists

        try:
            check_exists(config)
        except UnreachableError as error:
            return [f"not checked: {error}"]
        return []
    task = build_task(config)
    if config.eval is not None:
        build_task(config, "eval")
    return notes_of(task)


def check_judging(config: TaskConfig) -> list[str]:
    """Tries on this machine what judges answers, where building it does not: sandbox and tests, or a library.

    Raises TaskError when it does not work. Returns notes on what the sandbox does not contain.
    """
    if config.is_code:
        from tasks.code.build import check_judging as check_code

        return check_code(config)
    if JUDGED_FIELDS.issubset(FIELDS_OF[config.kind]):
        check_judge(config.answer)
    return []


def is_remote(config: TaskConfig) -> bool:
    """Whether building it may download something: one of its paths is no file or folder here."""
    if config.is_code:
        from tasks.code.build import source
    elif config.kind in ("huggingface", "minif2f"):
        from tasks.huggingface import source
    else:
        return False
    splits = ("train", "eval") if config.eval is not None else ("train",)
    return any(not Path(source(config, split).path).expanduser().exists() for split in splits)


def check_first_prompt(task: Task, name: str) -> None:
    """Raises TaskError unless the first prompt can be made."""
    try:
        prompt = task.prompt(0)
    except TaskError:
        raise
    except Exception as error:  # The task may be the user's: anything may happen in it.
        raise TaskError(f"prompt 0 of task {name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(prompt, Prompt):
        raise TaskError(f"prompt 0 of task {name} is a {type(prompt).__name__}; expected a tasks.Prompt")
