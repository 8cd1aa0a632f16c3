"""A task made of records, each with a question and an answer, wherever they were read from."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.answers import check_reference, judge
from tasks.config import TaskConfig
from tasks.errors import TaskError, describe_options
from tasks.task import Prompt, check_index

Rows = Sequence[Mapping[str, Any]]


class RecordTask:
    """One prompt for each of the chosen records."""

    def __init__(self, config: TaskConfig, rows: Rows, indices: Sequence[int], place: str) -> None:
        self.name = place
        self._config, self._rows, self._indices = config, rows, indices

    def __len__(self) -> int:
        return len(self._indices)

    def prompt(self, index: int) -> Prompt:
        check_index(index, len(self), self.name)
        number = self._indices[index]
        row, place = self._rows[number], f"record {number + 1} of {self.name}"
        question = read_text(row, self._config.question_field, "question_field", place)
        return Prompt.ask(
            self._config.prompt_template.replace("{question}", question), read_answer(self._config, row, place)
        )

    def reward(self, prompt: Prompt, completion: str) -> float:
        return judge(self._config.answer, self._config.completion_pattern, prompt.reference, completion)

    def check(self, count: int) -> None:
        """Raises TaskError when one of the first `count` records cannot be used."""
        for index in range(min(count, len(self))):
            self.prompt(index)


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


def select(config: TaskConfig, rows: Rows, split: str, has_own_eval: bool, place: str) -> RecordTask:
    """The task over those `rows` that belong to `split`, "train" or "eval"."""
    if len(rows) == 0:
        raise TaskError(f"{place} has no records; expected at least one")
    indices: Sequence[int] = range(len(rows))
    if config.eval is not None and not has_own_eval:
        train, held = hold_back(len(rows), config.eval.size, config.eval.seed, place)
        indices = held if split == "eval" else train
    return RecordTask(config, rows, indices, place)
