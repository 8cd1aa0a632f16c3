"""From a TaskConfig to one of the four code tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.code.problems import FORMATS
from tasks.code.task import CodeTask
from tasks.config import TaskConfig
from tasks.errors import TaskError, UnreachableError
from tasks.huggingface import Source, load_rows, look_up
from tasks.records import ChosenRows, FileRows, Rows, hold_back, place_of
from tasks.sandbox import Limits, choose, try_sandbox

# MBPP's own splits, by the numbers of its problems.
MBPP_SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}
# The split of MBPP+ that DASH (arXiv 2505.17218) trains and evaluates on: 264 and 114 of 378.
PLUS_SEED, PLUS_EVAL_SHARE = 42, 0.3


def build(config: TaskConfig, split: str) -> CodeTask:
    """The task's training or evaluation problems. Raises TaskError when they or the sandbox cannot be had."""
    form = FORMATS[config.name]
    way = choose(config.sandbox)
    origin = source(config, split)
    rows = load_rows(origin)
    if len(rows) == 0:
        raise TaskError(f"{origin.path} has no records; expected at least one")
    chosen = ChosenRows(rows, select(config, rows, split, origin), origin.path)
    for index in range(chosen.num_checked):
        form.check(*chosen.read(index))
    limits = Limits(time_s=config.time_limit_s, memory_mib=config.memory_limit_mib)
    return CodeTask(config.name, form, chosen, limits, way.name, config.prompt_template)


def validate(config: TaskConfig) -> list[str]:
    """As `tasks.build.validate`: what cannot be checked here, and what the sandbox does not contain."""
    notes = try_sandbox(config.sandbox)
    for split in splits_of(config):
        path = source(config, split).path
        if Path(path).expanduser().exists():
            build(config, split).check()
            continue
        try:
            look_up(path)
        except UnreachableError as error:
            notes.append(f"not checked: {error}")
    return list(dict.fromkeys(notes))


def check_judging(config: TaskConfig) -> list[str]:
    """As `tasks.build.check_judging`: the sandbox, and the tests of each record, which take milliseconds to compile.

    Done once at the start and not by each process that builds the task.
    """
    notes = try_sandbox(config.sandbox)
    for split in splits_of(config):
        build(config, split).check()
    return notes


def splits_of(config: TaskConfig) -> tuple[str, ...]:
    return ("train", "eval") if config.eval is not None else ("train",)


def source(config: TaskConfig, split: str) -> Source:
    """What to read for our `split`."""
    form, own = FORMATS[config.name], config.eval
    path, subset = config.path or form.path, config.subset or form.subset
    if own is None or split != "eval":
        return Source(path, subset, form.split)
    part = own.split or ("test" if config.name == "mbpp" else form.split)
    return Source(own.path or path, own.subset or subset, part)


def select(config: TaskConfig, rows: Rows, split: str, origin: Source) -> Sequence[int]:
    """The numbers of the records that belong to our `split`."""
    everything = range(len(rows))
    if config.name == "mbpp":
        return mbpp_split(rows, origin) if isinstance(rows, FileRows) else everything
    if config.eval is not None and config.eval.path is not None:
        return everything
    if config.name == "mbpp_plus":
        return plus_split(len(rows))[split == "eval"]
    if config.eval is None:
        return everything
    return hold_back(len(rows), config.eval.size, config.eval.seed, origin.path)[split == "eval"]


def mbpp_split(rows: Rows, origin: Source) -> list[int]:
    """The records of a file of MBPP that belong to a split as on the hub, by the numbers of their problems."""
    if origin.split not in MBPP_SPLITS:
        raise TaskError(f'task.eval.split is "{origin.split}"; expected one of {", ".join(MBPP_SPLITS)}')
    first, last = MBPP_SPLITS[origin.split]
    found = [
        number for number, row in enumerate(rows) if first <= task_id(row, place_of(rows, number, origin.path)) <= last
    ]
    if not found:
        raise TaskError(
            f"{origin.path} has no problem with a task_id from {first} to {last}, which is MBPP's split {origin.split}"
        )
    return found


def task_id(row: Any, place: str) -> int:
    """The number of a problem of MBPP. Raises TaskError."""
    number = row.get("task_id")
    if not isinstance(number, int):
        raise TaskError(f'{place} has no number in the field "task_id", by which MBPP is split')
    return number


@lru_cache(maxsize=4)
def plus_split(num_rows: int) -> tuple[list[int], list[int]]:
    """Records to train and to evaluate on, as `datasets` splits with test_size = 0.3 and seed = 42."""
    import numpy

    order = [int(number) for number in numpy.random.default_rng(PLUS_SEED).permutation(num_rows)]
    num_eval = math.ceil(num_rows * PLUS_EVAL_SHARE)
    return order[num_eval:], order[:num_eval]
