"""Everything that can be found wrong before a process is started, and what is learned on the way.

The order is that of cost: names and numbers first, then the task and the model, then the prompts' lengths.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.settings import RolloutSettings
from buffer.errors import LedgerError
from buffer.machine import Machine
from learner.checkpoint import ResumeError, ResumePoint, check_resume, model_identity
from protocol.core_loan import CoreLoan
from rapid.config import RapidConfig
from rapid.errors import UsageError
from rapid.models import ModelError, check_model, model_here, prepare_model
from tasks import Task, TaskConfig, TaskError, build_task, check_judging, validate
from tasks.build import Split, is_remote
from tasks.task import notes_of
from telemetry.errors import RunDirectoryError, TrackerError
from telemetry.exporter import ports_of
from telemetry.run_dir import RunDirectory, locked
from telemetry.trackers import check_trackers

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
    notes: tuple[str, ...] = ()
    """What whoever starts the run should know."""

    def rollout_settings(
        self, name: str, hub_address: str, seed: int, cores: list[int] | None, loan: CoreLoan | None = None
    ) -> RolloutSettings:
        """What an actor or the evaluator of this run is told."""
        config = self.config
        return RolloutSettings(
            name=name,
            hub_address=hub_address,
            model_path=self.model_dir,
            model=config.model,
            actors=config.actors,
            weights=config.weights,
            schedule=config.schedule,
            task=config.task,
            telemetry=config.telemetry,
            seed=seed,
            cores=cores,
            loan=loan,
            run_dir=self.run_dir,
        )


def check_run(config: RapidConfig, recipe: Path, *, resume: bool) -> tuple[str, Path]:
    """Name and folder of the run. Raises UsageError when the folder does not fit `--resume`, or a name is missing."""
    if resume and config.run.name is None:
        raise UsageError("--resume: expected the run's name; say which with --run NAME")
    name = config.run.name or f"{recipe.stem}-{time.strftime('%m%d-%H%M%S')}"
    run_dir = Path(config.run.directory).expanduser().resolve() / name
    if run_dir.exists() and not resume and not RunDirectory(run_dir).never_began():
        raise UsageError(
            f"run {name!r}: the folder {run_dir} exists; add --resume to go on with it, or choose another --run NAME"
        )
    if not resume:
        _check_place(run_dir)
    if resume and not run_dir.is_dir():
        raise UsageError(f"run {name!r}: there is no folder {run_dir} to resume; leave out --resume to begin it")
    if resume:
        _check_unused(run_dir)
        _check_same_task(config, run_dir)
    return name, run_dir


def _check_place(run_dir: Path) -> None:
    there = next(folder for folder in run_dir.parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "cannot be written" if there.is_dir() else "is a file"
        raise UsageError(f"run.directory: {there} {what}, expected a folder for {run_dir}; choose another")


def _check_unused(run_dir: Path) -> None:
    try:
        with locked(run_dir):
            pass
    except RunDirectoryError as error:
        raise UsageError(f"--resume: {error}") from None


def _check_same_task(config: RapidConfig, run_dir: Path) -> None:
    """The ledger knows prompts by their numbers, which mean others in another task."""
    try:
        before = RunDirectory(run_dir).read_config().get("task", {})
    except RunDirectoryError as error:
        raise UsageError(f"--resume: {error}; choose another --run NAME") from None
    now = config.task.model_dump(mode="json")
    for name in sorted((before.keys() | now.keys()) - {"eval"}):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"--resume: task.{name} is {now.get(name)!r}, expected {before.get(name)!r} as in {run_dir.name}: "
                "resume with the task of that run, or begin a new one under another --run NAME"
            )
    _check_same_lot(config, before, run_dir)


def _check_same_lot(config: RapidConfig, before: dict[str, Any], run_dir: Path) -> None:
    """With another lot records that were trained on would be evaluation prompts."""
    try:
        drawn = TaskConfig.model_validate(before).lot
    except ValidationError as error:
        raise UsageError(f"--resume: {run_dir.name} has a task that cannot be read: {error}") from None
    if name := differing_lot(drawn, config.task.lot):
        now, then = ((lot or {}).get(name) for lot in (config.task.lot, drawn))
        raise UsageError(
            f"--resume: {name} is {now!r}, expected {then!r} as in {run_dir.name}, for it decides which records are "
            "held back and these must never have been trained on: leave [task.eval] as it was, or begin a new run "
            "under another --run NAME"
        )


def differing_lot(one: dict[str, Any] | None, other: dict[str, Any] | None) -> str | None:
    """The first option by which two lots of held-back records differ (see TaskConfig.lot); None if they are one."""
    one, other = one or {}, other or {}
    return next((name for name in one | other if one.get(name) != other.get(name)), None)


def prepare(config: RapidConfig, recipe: Path, *, resume: bool) -> Plan:
    """All checks; converts or makes the model if it is one of Rapid's own.

    Raises:
        UsageError: with field, value, expectation and remedy.
    """
    config = _with_absolute_paths(config)
    name, run_dir = check_start(config, recipe, resume=resume)
    task, notes = load_checked_task(config)
    plan = _fit(config, name, run_dir, task, load_model(config), resume=resume)
    return replace(plan, notes=notes)


def check_dry(config: RapidConfig, recipe: Path, *, resume: bool) -> list[str]:
    """The checks of `prepare`, except those for which a model must be made or something downloaded first.

    Returns notes on what could not be checked.

    Raises:
        UsageError: with field, value, expectation and remedy.
    """
    config = _with_absolute_paths(config)
    name, run_dir = check_start(config, recipe, resume=resume)
    try:
        notes = [*validate(config.task), *check_model(config.model.path)]
        model_dir = model_here(config.model.path)
    except (TaskError, ModelError) as error:
        raise UsageError(str(error)) from None
    if model_dir is None or is_remote(config.task):
        what = "the length of the prompts" + (", and whether the checkpoint fits" if resume else "")
        return [*notes, f"not checked: {what}, since the start fetches or makes the model or the data first"]
    _fit(config, name, run_dir, load_task(config), model_dir, resume=resume)
    return notes


def check_start(config: RapidConfig, recipe: Path, *, resume: bool) -> tuple[str, Path]:
    """Name and folder of the run, after all checks that need neither the task nor the model. Raises UsageError."""
    name, run_dir = check_run(config, recipe, resume=resume)
    check_cluster()
    check_scaling(config)
    check_ports(config)
    check_tracker_packages(config)
    check_transport(config)
    return name, run_dir


def _fit(config: RapidConfig, name: str, run_dir: Path, task: Task, model_dir: Path, *, resume: bool) -> Plan:
    """Whether task, model and checkpoint fit each other. Raises UsageError."""
    check_prompts(config, task, model_dir)
    if config.task.eval is not None and config.task.eval.every is not None:
        check_prompts(config, load_task(config, "eval"), model_dir)
    point = find_resume_point(config, run_dir, model_dir, len(task)) if resume else None
    return Plan(config, name, run_dir, model_dir, len(task), point)


def _with_absolute_paths(config: RapidConfig) -> RapidConfig:
    """Actors may run in another folder than this process, so that relative paths would name other files there."""
    task = config.task
    if task.path is not None and Path(task.path).exists():
        task = task.model_copy(update={"path": str(Path(task.path).resolve())})
    if task.eval is not None and task.eval.path is not None and Path(task.eval.path).exists():
        task = task.model_copy(
            update={"eval": task.eval.model_copy(update={"path": str(Path(task.eval.path).resolve())})}
        )
    return config.model_copy(update={"task": task})


def load_task(config: RapidConfig, split: Split = "train") -> Task:
    """The task, built: its training or its evaluation prompts. Raises UsageError."""
    try:
        return build_task(config.task, split)
    except TaskError as error:
        raise UsageError(str(error)) from None


def load_checked_task(config: RapidConfig, split: Split = "train") -> tuple[Task, tuple[str, ...]]:
    """The task, built, after what judges its answers was tried; and notes on both. Raises UsageError."""
    try:
        notes = check_judging(config.task)
    except TaskError as error:
        raise UsageError(str(error)) from None
    task = load_task(config, split)
    return task, tuple(dict.fromkeys([*notes, *notes_of(task)]))


def load_model(config: RapidConfig) -> Path:
    """The model's folder, made first where it is one of Rapid's own. Raises UsageError."""
    try:
        check_model(config.model.path)
        return prepare_model(config.model.path)
    except ModelError as error:
        raise UsageError(str(error)) from None


def find_resume_point(config: RapidConfig, run_dir: Path, model_dir: Path, num_prompts: int) -> ResumePoint:
    """The newest checkpoint, if it and its ledger fit the configuration. Raises UsageError."""
    try:
        point = check_resume(
            run_dir,
            model_path=config.model.path,
            dtype=config.model.dtype,
            identity=model_identity(model_dir),
            ranks=config.learner.ranks,
            zero_stage=config.learner.zero_stage,
        )
        # The hub will do the same, when everything is started already.
        Machine(config.buffer, config.schedule, config.learner.batch_groups, num_prompts, config.run.seed, point.ledger)
    except (ResumeError, LedgerError) as error:
        raise UsageError(f"--resume: {error}") from None
    return point


def _cluster_address() -> str | None:
    """The cluster that the run would join; None for a Ray of its own on this machine."""
    return os.environ.get("RAY_ADDRESS") or None


def check_transport(config: RapidConfig) -> None:
    """Raises UsageError when weights are to travel between GPUs that a run on this machine alone does not have."""
    transport = config.weights.transport
    if transport == "zmq" or _cluster_address():
        return
    import torch

    if not torch.cuda.is_available():
        raise UsageError(
            f"weights.transport = {transport!r}: expected GPUs, and torch finds none here; take 'zmq', or set "
            "RAY_ADDRESS to a cluster that has them"
        )


def check_cluster() -> None:
    """Raises UsageError when RAY_ADDRESS names a cluster that does not answer."""
    if address := _cluster_address():
        from rapid.cluster import check_answers

        check_answers(address)


def check_scaling(config: RapidConfig) -> None:
    """Raises UsageError when actors are to follow the room of a cluster, and there is none."""
    if config.actors.scaling == "cluster" and not _cluster_address():
        raise UsageError(
            'actors.scaling = "cluster": expected RAY_ADDRESS of a running cluster, whose room it would follow; on one '
            "machine say actors.count, and change it with `rapid scale`"
        )


def check_ports(config: RapidConfig) -> None:
    """Raises UsageError when a port that the configuration names is taken on this machine.

    On a cluster hub and learner may have another machine, where the port is theirs to find taken.
    """
    if not _cluster_address():
        _check_free("buffer.port =", config.buffer.port)
    if config.telemetry.exporter and config.telemetry.port:
        evaluator = ("eval",) if config.task.eval is not None and config.task.eval.every is not None else ()
        for part in ("launcher",) if _cluster_address() else ("hub", "learner", "launcher", *evaluator):
            port = ports_of(config.telemetry.port, part, 0)[0]
            _check_free(f"telemetry.port = {config.telemetry.port} gives {part}-0 the port", port)


def check_tracker_packages(config: RapidConfig) -> None:
    """Raises UsageError when a tracker is asked for that cannot be used here."""
    try:
        check_trackers(config.telemetry.trackers)
    except TrackerError as error:
        raise UsageError(str(error)) from None


def _check_free(what: str, port: int) -> None:
    if port == 0:
        return
    with socket.socket() as probe:
        # ZeroMQ listens with SO_REUSEADDR too, so that a port still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UsageError(
                f"{what} {port}: {(error.strerror or str(error)).lower()}; take a free one, or 0 for any"
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
        try:
            length = len(text.encode(task.prompt(index).messages))
        except Exception as error:  # The task may be the user's, and the chat template is the model's.
            raise UsageError(
                f"prompt {index} of task {config.task.name!r} cannot be made: {type(error).__name__}: {error}. "
                "Expected messages that the chat template of the model takes"
            ) from error
        if length > limit:
            raise UsageError(
                f"model.max_context = {config.model.max_context}: prompt {index} of the task has {length} tokens, "
                f"expected at most {limit}, for actors.max_tokens = {config.actors.max_tokens} must fit too; raise "
                "model.max_context, lower actors.max_tokens, or leave such prompts out of the task"
            )
