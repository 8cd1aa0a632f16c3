"""Views of a task: without the evaluation's prompts, and only the first prompts."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import cached_property

from tasks.errors import TaskError
from tasks.task import Prompt, Reward, Task, check_index, difficulty_of, notes_of, prompt_key


class View:
    """A task that hands out another task's prompts."""

    def __init__(self, task: Task) -> None:
        self.name = task.name
        self._task = task

    def __len__(self) -> int:
        return len(self._task)

    @property
    def notes(self) -> list[str]:
        return notes_of(self._task)

    def prompt(self, index: int) -> Prompt:
        return self._task.prompt(index)

    def difficulty(self, index: int) -> str | None:
        return difficulty_of(self._task, index)

    def reward(self, prompt: Prompt, completion: str) -> float | Reward | Awaitable[float | Reward]:
        return self._task.reward(prompt, completion)


class First(View):
    """At most the first `size` prompts."""

    def __init__(self, task: Task, size: int) -> None:
        super().__init__(task)
        self._size = min(size, len(task))

    def __len__(self) -> int:
        return self._size

    def prompt(self, index: int) -> Prompt:
        check_index(index, len(self), self.name)
        return super().prompt(index)

    def difficulty(self, index: int) -> str | None:
        check_index(index, len(self), self.name)
        return super().difficulty(index)


class HeldOut(View):
    """Training prompts, of which none asks what the evaluation asks.

    Different seeds or records may still hold the same question: two one-digit terms make 200 sums in all. Where one
    does, the next prompt that does not takes its place. Prompts are compared one by one as they are asked for,
    because generating all of them could take minutes.
    """

    def __init__(self, task: Task, evaluation: Task) -> None:
        super().__init__(task)
        self._evaluation = evaluation

    @cached_property
    def _held_keys(self) -> set[tuple[tuple[str, str], ...]]:
        return {prompt_key(self._evaluation.prompt(index)) for index in range(len(self._evaluation))}

    def prompt(self, index: int) -> Prompt:
        return self._find(index)[1]

    def difficulty(self, index: int) -> str | None:
        return difficulty_of(self._task, self._find(index)[0])

    def _find(self, index: int) -> tuple[int, Prompt]:
        """The prompt at `index` or the next one that is not held out, and where it stands."""
        for step in range(len(self)):
            place = (index + step) % len(self)
            prompt = self._task.prompt(place)
            if prompt_key(prompt) not in self._held_keys:
                return place, prompt
        raise TaskError(
            f"every prompt of {self.name} is also an evaluation prompt; "
            "lower task.eval.size, or give the task more prompts"
        )
