"""Tasks of the user's own, named module:object."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks.config import EvalConfig, TaskConfig
from tasks.errors import TaskError, describe_options
from tasks.task import Task, check_task


def build(config: TaskConfig, split: str) -> Task:
    """The task that `module:object` is, or returns when called with task.params (and `split` or `seed` if taken)."""
    found = load_object(config.name)
    if callable(found) and (inspect.isclass(found) or not hasattr(found, "prompt")):
        return check_task(call(found, config, split), config.name)
    if config.params:
        raise TaskError(
            f"task.params is {config.params}, but {config.name} is a finished task that takes none: remove it"
        )
    refuse_seed(config, split)
    if split == "eval":
        raise TaskError(no_eval(config.name))
    return check_task(found, config.name)


def load_object(name: str) -> Any:
    """The object named module:object; modules in the current directory are found too."""
    module_name, _, path = name.partition(":")
    found: Any = load_module(module_name, name)
    for part in path.split("."):
        if not hasattr(found, part):
            public = [each for each in vars(found) if not each.startswith("_")]
            raise TaskError(f'task.name is "{name}", but {module_name} has no {part}; {describe_options(part, public)}')
        found = getattr(found, part)
    return found


def load_module(module_name: str, name: str) -> ModuleType:
    # At the end, so that a file of the user's cannot take the place of a library.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            modules = [file.stem for file in Path.cwd().glob("*.py")]
            options = describe_options(module_name, modules) if modules else "there is no Python file in it"
            raise TaskError(
                f'task.name is "{name}", but no module {error.name} is installed or in {Path.cwd()}; {options}'
            ) from None
        raise TaskError(f'task.name is "{name}", but importing it failed: {error}') from error
    except Exception as error:  # The module is the user's: anything may happen in it.
        raise TaskError(f'task.name is "{name}", but importing it failed: {type(error).__name__}: {error}') from error


def call(found: Callable[..., object], config: TaskConfig, split: str) -> object:
    """The task that `found` makes. Raises TaskError when the parameters do not fit, or when it raises."""
    arguments = dict(config.params)
    parameters = inspect.signature(found).parameters
    if "split" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        arguments["split"] = split
    elif split == "eval":
        raise TaskError(no_eval(config.name))
    if "seed" in parameters:
        arguments.setdefault("seed", seed_of(config, split)[1])
    else:
        refuse_seed(config, split)
    try:
        inspect.signature(found).bind(**arguments)
    except TypeError as error:
        raise TaskError(
            f"task.params is {config.params}, but {config.name} takes ({', '.join(parameters)}): {error}"
        ) from None
    try:
        return found(**arguments)
    except TaskError:
        raise
    except Exception as error:  # It is the user's code: anything may happen in it.
        raise TaskError(f"building the task {config.name} failed: {type(error).__name__}: {error}") from error


def seed_of(config: TaskConfig, split: str) -> tuple[str, int, int]:
    """The field that seeds the prompts of a split, its value and its default."""
    if split == "eval" and config.eval is not None:
        return "task.eval.seed", config.eval.seed, EvalConfig.model_fields["seed"].default
    return "task.seed", config.seed, TaskConfig.model_fields["seed"].default


def refuse_seed(config: TaskConfig, split: str) -> None:
    """Raises TaskError for a seed that would be silently ignored."""
    name, value, default = seed_of(config, split)
    if value != default:
        raise TaskError(f"{name} is {value}, but {config.name} takes no seed: give it a parameter seed, or remove it")


def no_eval(name: str) -> str:
    return f'{name} makes no evaluation prompts: give it a parameter split ("train" or "eval"), or remove task.eval'
