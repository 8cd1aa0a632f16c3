"""A task made of records, each with a question and an answer, wherever they were read from."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.answers import check_reference, judge
from tasks.boxed import last_boxed
from tasks.config import TaskConfig
from tasks.errors import TaskError, describe_options
from tasks.task import Prompt, check_index

Rows = Sequence[Mapping[str, Any]]


class FileRows(list[dict[str, Any]]):
    """The records of a file, and the line at which each stands."""

    lines: Sequence[int] = ()
    """Empty for a file that is not read line by line."""


# Records of a data set come from disk one by one, so that checking all could take minutes; a bad one deep inside costs
# its prompt and not the run.
RECORDS_CHECKED = 64


class ChosenRows:
    """The rows of one split."""

    def __init__(self, rows: Rows, indices: Sequence[int], name: str) -> None:
        self.name = name
        self._rows, self._indices = rows, indices

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def num_checked(self) -> int:
        """Of how many the start of a run looks at each: of a file at all."""
        return len(self) if isinstance(self._rows, FileRows) else min(len(self), RECORDS_CHECKED)

    def read(self, index: int) -> tuple[Mapping[str, Any], str]:
        """The row, and where it stands, for messages about it. Raises TaskError for an index outside."""
        check_index(index, len(self), self.name)
        number = self._indices[index]
        return self._rows[number], place_of(self._rows, number, self.name)


class RecordTask:
    """One prompt for each of the chosen records."""

    def __init__(self, config: TaskConfig, chosen: ChosenRows) -> None:
        self.name = chosen.name
        self._config, self._chosen = config, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def prompt(self, index: int) -> Prompt:
        row, place = self._chosen.read(index)
        question = read_text(row, self._config.question_field, "question_field", place)
        return Prompt.ask(
            self._config.prompt_template.replace("{question}", question), read_answer(self._config, row, place)
        )

    def reward(self, prompt: Prompt, completion: str) -> float:
        return judge(self._config.answer, self._config.completion_pattern, prompt.reference, completion)

    def difficulty(self, index: int) -> str | None:
        """What difficulty_field holds, or how often difficulty_count is found in it."""
        config = self._config
        if config.difficulty_field is None:
            return None
        row, place = self._chosen.read(index)
        text = read_text(row, config.difficulty_field, "difficulty_field", place)
        if config.difficulty_count is None:
            return text
        return str(sum(1 for _ in re.finditer(config.difficulty_count, text)))

    def check(self) -> None:
        """Raises TaskError when a record cannot be used."""
        for index in range(self._chosen.num_checked):
            self.prompt(index)
            self.difficulty(index)


def place_of(rows: Rows, number: int, name: str) -> str:
    """Where a record stands: "train.jsonl:3", or "record 3 of openai/gsm8k (train)" where there are no lines."""
    if isinstance(rows, FileRows) and rows.lines:
        return f"{name}:{rows.lines[number]}"
    return f"record {number + 1} of {name}"


def read_text(row: Mapping[str, Any], field: str, option: str, place: str) -> str:
    """The text of a field; numbers are written out."""
    if field not in row:
        raise TaskError(f'task.{option} is "{field}", which {place} does not have; {describe_options(field, row)}')
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TaskError(
            f'{place} has {type(value).__name__} in "{field}"; expected text or a number: see task.{option}'
        )
    return str(value)


def read_answer(config: TaskConfig, row: Mapping[str, Any], place: str) -> str:
    """The right answer of a record."""
    text = read_text(row, config.answer_field, "answer_field", place)
    if config.answer_pattern is not None:
        match = re.search(config.answer_pattern, text)
        if match is None or match[1] is None:
            raise TaskError(
                f"{place} has the answer {text[-80:]!r}, in which task.answer_pattern {config.answer_pattern!r} "
                "finds nothing"
            )
        text = match[1].strip()
    if config.answer == "boxed":
        # A solution ends in its answer; a field that holds the bare answer is that answer.
        text = text if "\\boxed" not in text and "\\fbox" not in text else last_boxed(text) or ""
    check_reference(text, config.answer, place)
    return text


def hold_back(num_rows: int, size: int, seed: int, place: str) -> tuple[list[int], list[int]]:
    """Indices to train on and `size` indices to evaluate on, drawn by `seed`, both in the order of the records."""
    if size >= num_rows:
        raise TaskError(
            f"task.eval.size is {size}, but {place} has only {num_rows} records to draw from; "
            "take fewer, or name separate records in task.eval.path or task.eval.split"
        )
    held = set(random.Random(seed).sample(range(num_rows), size))
    return [index for index in range(num_rows) if index not in held], sorted(held)


def select(config: TaskConfig, rows: Rows, split: str, has_own_eval: bool, name: str) -> ChosenRows:
    """Those `rows` that belong to `split`, "train" or "eval"."""
    if len(rows) == 0:
        raise TaskError(f"{name} has no records; expected at least one")
    wanted = (config.eval.split if split == "eval" and config.eval is not None else None) or config.split
    indices: Sequence[int] = range(len(rows))
    if config.split_field is not None:
        indices = find_split(rows, config.split_field, wanted, name)
    if config.eval is not None and not has_own_eval:
        train, held = hold_back(len(indices), config.eval.size, config.eval.seed, name)
        indices = [indices[position] for position in (held if split == "eval" else train)]
    return ChosenRows(rows, indices, name)


def find_split(rows: Rows, field: str, wanted: str, name: str) -> list[int]:
    """Indices of the records whose `field` is `wanted`. Raises TaskError when there is none."""
    splits = [read_text(row, field, "split_field", place_of(rows, number, name)) for number, row in enumerate(rows)]
    indices = [number for number, split in enumerate(splits) if split == wanted]
    if not indices:
        raise TaskError(
            f'no record of {name} has "{wanted}" in "{field}"; {describe_options(wanted, set(splits))}: '
            "see task.split, task.eval.split and task.split_field"
        )
    return indices
