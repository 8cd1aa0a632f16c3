"""Everything that can be found wrong before a process is started, and what is learned on the way.

The order is that of cost: names and numbers first, then the task and the model, then the prompts' lengths.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from learner.checkpoint import ResumeError, ResumePoint, check_resume, model_identity
from rapid.config import RapidConfig
from rapid.errors import UsageError
from rapid.models import ModelError, check_model, prepare_model
from tasks import Task, TaskError, build_task, validate

_MEASURE_S = 10.0


@dataclass(frozen=True)
class Plan:
    """A run that can start."""

    config: RapidConfig
    name: str
    run_dir: Path
    model_dir: Path
    num_prompts: int
    resume: ResumePoint | None


def check_run(config: RapidConfig, recipe: Path, *, resume: bool) -> tuple[str, Path]:
    """Name and folder of the run. Raises UsageError when the folder does not fit `--resume`, or a name is missing."""
    if resume and config.run.name is None:
        raise UsageError("--resume: expected the run's name; say which with --run NAME")
    name = config.run.name or f"{recipe.stem}-{time.strftime('%m%d-%H%M%S')}"
    run_dir = Path(config.run.directory).expanduser().resolve() / name
    if run_dir.exists() and not resume:
        raise UsageError(
            f"run {name!r}: the folder {run_dir} exists; add --resume to go on with it, or choose another --run NAME"
        )
    if resume and not run_dir.is_dir():
        raise UsageError(f"run {name!r}: there is no folder {run_dir} to resume; leave out --resume to begin it")
    return name, run_dir


def prepare(config: RapidConfig, recipe: Path, *, resume: bool) -> Plan:
    """All checks; converts or makes the model if it is one of Rapid's own.

    Raises:
        UsageError: with field, value, expectation and remedy.
    """
    name, run_dir = check_run(config, recipe, resume=resume)
    check_port(config)
    task = load_task(config)
    model_dir = load_model(config)
    check_prompts(config, task, model_dir)
    point = find_resume_point(config, run_dir, model_dir) if resume else None
    return Plan(config, name, run_dir, model_dir, len(task), point)


def check_dry(config: RapidConfig, recipe: Path, *, resume: bool) -> list[str]:
    """What can be checked without building the task or fetching a model; returns notes on what could not.

    Raises:
        UsageError: with field, value, expectation and remedy.
    """
    check_run(config, recipe, resume=resume)
    check_port(config)
    try:
        return [*validate(config.task), *check_model(config.model.path)]
    except (TaskError, ModelError) as error:
        raise UsageError(str(error)) from None


def load_task(config: RapidConfig) -> Task:
    """The task, built. Raises UsageError."""
    try:
        return build_task(config.task)
    except TaskError as error:
        raise UsageError(str(error)) from None


def load_model(config: RapidConfig) -> Path:
    """The model's folder, made first where it is one of Rapid's own. Raises UsageError."""
    try:
        check_model(config.model.path)
        return prepare_model(config.model.path)
    except ModelError as error:
        raise UsageError(str(error)) from None


def find_resume_point(config: RapidConfig, run_dir: Path, model_dir: Path) -> ResumePoint:
    """The newest checkpoint, if it fits the configuration. Raises UsageError."""
    try:
        return check_resume(
            run_dir,
            model_path=config.model.path,
            dtype=config.model.dtype,
            identity=model_identity(model_dir),
            ranks=config.learner.ranks,
            zero_stage=config.learner.zero_stage,
        )
    except ResumeError as error:
        raise UsageError(str(error)) from None


def check_port(config: RapidConfig) -> None:
    """Raises UsageError when the hub's port is taken on this machine."""
    port = config.buffer.port
    if port == 0:
        return
    with socket.socket() as probe:
        # ZeroMQ listens with SO_REUSEADDR too, so that a port still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UsageError(
                f"buffer.port = {port}: {(error.strerror or str(error)).lower()}; take a free one, or 0 for any"
            ) from None


def check_prompts(config: RapidConfig, task: Task, model_dir: Path) -> None:
    """Raises UsageError when a prompt leaves no room for `actors.max_tokens` in `model.max_context`."""
    from actors.text import ChatText

    text = ChatText(model_dir, config.model.system_prompt)
    limit = config.model.max_context - config.actors.max_tokens
    # A longer prompt further on, where making prompts is slow, fails by itself and is counted as a dead letter.
    deadline = time.monotonic() + _MEASURE_S
    for index in range(len(task)):
        if time.monotonic() > deadline:
            return
        length = len(text.encode(task.prompt(index).messages))
        if length > limit:
            raise UsageError(
                f"model.max_context = {config.model.max_context}: prompt {index} of the task has {length} tokens, "
                f"expected at most {limit}, for actors.max_tokens = {config.actors.max_tokens} must fit too; raise "
                "model.max_context, lower actors.max_tokens, or leave such prompts out of the task"
            )
