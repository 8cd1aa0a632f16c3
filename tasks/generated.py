"""Tasks that Rapid generates itself: from a seed, with evaluation questions that training never asks."""

from __future__ import annotations

import zlib
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any, Protocol

from tasks.answers import extract_last
from tasks.config import TaskConfig
from tasks.errors import TaskError
from tasks.task import Prompt, check_index

# Of all questions every fifth belongs to the evaluation, by a sum over its text: so the two are disjoint whatever
# seeds and sizes are chosen, and a question changes sides in no run.
EVAL_SHARE = 5
MAX_DRAWS = 1000


@dataclass(frozen=True)
class Instance:
    """One question, what its judge needs, and how hard it is by the generator's dial."""

    question: str
    reference: Any
    difficulty: str
    answer: str
    """A right completion."""


class Generator(Protocol):
    """What a generated task consists of."""

    name: str

    def draw(self, random: Random) -> Instance:
        """A question. Equal ones must have equal texts."""
        ...

    def judge(self, reference: Any, completion: str) -> float:
        """1 if the completion answers the question with that reference, else 0."""
        ...


class GeneratedTask:
    """Questions of a generator, in the order of their seed."""

    def __init__(self, config: TaskConfig, generator: Generator, split: str) -> None:
        self.name = f"{generator.name} ({split})"
        self._config, self._generator, self._split = config, generator, split
        self._instances: dict[int, Instance] = {}

    def __len__(self) -> int:
        return self._config.size if self._split == "train" else len(self._held_out)

    def prompt(self, index: int) -> Prompt:
        instance = self.instance(index)
        return Prompt([*self._turns(), self._ask(instance)], instance.reference)

    def difficulty(self, index: int) -> str | None:
        return self.instance(index).difficulty

    def reward(self, prompt: Prompt, completion: str) -> float:
        given = extract_last(self._config.completion_pattern, completion)
        return 0.0 if given is None else self._generator.judge(prompt.reference, given)

    def instance(self, index: int) -> Instance:
        """The instance of that index. Training may meet a question twice, the evaluation asks each once."""
        check_index(index, len(self), self.name)
        if self._split == "eval":
            return self._held_out[index]
        if index not in self._instances:
            random = Random(f"{self._config.seed} {index}")
            self._instances[index] = self._draw_from(random, is_held_out=False, besides=self.examples)
        return self._instances[index]

    @cached_property
    def examples(self) -> dict[str, Instance]:
        """Examples by their questions. The same for all prompts, so that engines keep them in their prefix cache."""
        random, found = Random("examples"), {}
        for _ in range(self._config.examples):
            instance = self._draw_from(random, is_held_out=False, besides=found)
            found[instance.question] = instance
        return found

    def _turns(self) -> list[dict[str, str]]:
        answers = [{"role": "assistant", "content": each.answer} for each in self.examples.values()]
        asked = map(self._ask, self.examples.values())
        return [turn for pair in zip(asked, answers, strict=True) for turn in pair]

    def _ask(self, instance: Instance) -> dict[str, str]:
        return {"role": "user", "content": self._config.prompt_template.replace("{question}", instance.question)}

    @cached_property
    def _held_out(self) -> list[Instance]:
        assert self._config.eval is not None
        random, size = Random(f"eval {self._config.eval.seed}"), self._config.eval.size
        found: dict[str, Instance] = {}
        for _ in range(size * MAX_DRAWS):
            if len(found) == size:
                return list(found.values())
            instance = self._draw_from(random, is_held_out=True, besides={})
            found[instance.question] = instance
        raise TaskError(
            f"task.eval.size is {size}, but {self.name} has only about {len(found)} different evaluation questions; "
            f"lower it, or widen task.params, which is {self._config.params}"
        )

    def _draw_from(self, random: Random, *, is_held_out: bool, besides: Container[str]) -> Instance:
        for _ in range(MAX_DRAWS):
            instance = self._generator.draw(random)
            if belongs_to_evaluation(instance.question) == is_held_out and instance.question not in besides:
                return instance
        raise TaskError(f"{self.name} has too few different questions; widen task.params: it is {self._config.params}")


def belongs_to_evaluation(question: str) -> bool:
    """Whether the question is never trained on."""
    return zlib.crc32(question.encode()) % EVAL_SHARE == 0
