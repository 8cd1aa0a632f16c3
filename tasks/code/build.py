"""From a TaskConfig to one of the four code tasks."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.code.problems import FORMATS, Format
from tasks.code.task import CodeTask
from tasks.config import TaskConfig
from tasks.errors import TaskError, UnreachableError
from tasks.huggingface import RECORDS_CHECKED, load_rows, look_up
from tasks.jsonl import find_file, read_rows
from tasks.records import hold_back
from tasks.sandbox import Limits, choose, try_sandbox

# MBPP's own splits, by the numbers of its problems.
MBPP_SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}
# The split of MBPP+ that DASH (arXiv 2505.17218) trains and evaluates on: 264 and 114 of 378.
PLUS_SEED, PLUS_EVAL_SHARE = 42, 0.3


def build(config: TaskConfig, split: str) -> CodeTask:
    """The task's training or evaluation problems. Raises TaskError when they or the sandbox cannot be had."""
    form = FORMATS[config.name]
    way = choose(config.sandbox)
    path, part = source(config, split)
    rows = read(config, path, part)
    if not rows:
        raise TaskError(f"{path} has no records; expected at least one")
    is_file = Path(path).expanduser().is_file()
    for number in range(len(rows) if is_file else min(RECORDS_CHECKED, len(rows))):
        check(form, rows[number], path, number, is_file=is_file)
    indices = select(config, rows, split, path)
    limits = Limits(time_s=config.time_limit_s, memory_mib=config.memory_limit_mib)
    return CodeTask(config.name, form, rows, indices, limits, way.name, config.prompt_template)


def validate(config: TaskConfig) -> list[str]:
    """As `tasks.build.validate`: what cannot be checked here, and what the sandbox does not contain."""
    notes = try_sandbox(config.sandbox)
    for split in ("train", "eval") if config.eval is not None else ("train",):
        path, _ = source(config, split)
        if Path(path).expanduser().is_file():
            build(config, split).prompt(0)
            continue
        try:
            look_up(path)
        except UnreachableError as error:
            notes.append(f"not checked: {error}")
    return list(dict.fromkeys(notes))


def source(config: TaskConfig, split: str) -> tuple[str, str]:
    """The path to read for our `split`, and the data set's own split there."""
    form = FORMATS[config.name]
    path = config.path or form.path
    if config.eval is None or split != "eval":
        return path, form.split
    own = config.eval.split or ("test" if config.name == "mbpp" else form.split)
    return config.eval.path or path, own


def read(config: TaskConfig, path: str, part: str) -> Any:
    """The records. Of a file of MBPP those that belong to the split `part`, as on the hub."""
    if not Path(path).expanduser().is_file():
        return load_rows(path, config.subset or FORMATS[config.name].subset, part)
    rows = read_rows(find_file(path, "task.path"))
    if config.name != "mbpp":
        return rows
    if part not in MBPP_SPLITS:
        raise TaskError(f'task.eval.split is "{part}"; expected one of {", ".join(MBPP_SPLITS)}')
    first, last = MBPP_SPLITS[part]
    numbers: list[Any] = [row.get("task_id") for row in rows]
    for number, task_id in enumerate(numbers):
        if not isinstance(task_id, int):
            raise TaskError(f'{place_of(path, number)} has no number in the field "task_id", which tells its split')
    return [row for row, task_id in zip(rows, numbers, strict=True) if first <= task_id <= last]


def select(config: TaskConfig, rows: Sequence[Any], split: str, path: str) -> Sequence[int]:
    """The numbers of the records that belong to our `split`."""
    everything = range(len(rows))
    if config.name == "mbpp" or (config.eval is not None and config.eval.path is not None):
        return everything
    if config.name == "mbpp_plus":
        return plus_split(len(rows))[split == "eval"]
    if config.eval is None:
        return everything
    return hold_back(len(rows), config.eval.size, config.eval.seed, path)[split == "eval"]


@lru_cache(maxsize=4)
def plus_split(num_rows: int) -> tuple[list[int], list[int]]:
    """Records to train and to evaluate on, as `datasets` splits with test_size = 0.3 and seed = 42."""
    import numpy

    order = [int(number) for number in numpy.random.default_rng(PLUS_SEED).permutation(num_rows)]
    num_eval = math.ceil(num_rows * PLUS_EVAL_SHARE)
    return order[num_eval:], order[:num_eval]


def check(form: Format, row: Any, path: str, number: int, *, is_file: bool) -> None:
    """Raises TaskError, with file, line and field, when a record cannot be used."""
    try:
        form.check(row, "")
    except TaskError:
        # Only now is the line looked for, for which the file is read again.
        form.check(row, place_of(path, number) if is_file else f"record {number + 1} of {path}")


def place_of(path: str, number: int) -> str:
    """The file and line of its record `number`, counted from 0."""
    if not path.removesuffix(".gz").endswith(".jsonl"):
        return f"record {number + 1} of {path}"
    return f"{path}:{nth_line(read_lines(path), number)}"


def read_lines(path: str) -> Iterable[str]:
    data = Path(path).expanduser().read_bytes()
    return (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8-sig").split("\n")


def nth_line(lines: Iterable[str], number: int) -> int:
    """The line, from 1, of the record `number`, from 0; blank lines hold none."""
    return [line for line, text in enumerate(lines, start=1) if text.strip()][number]
