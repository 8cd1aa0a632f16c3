"""What a task is: prompts by index, and a reward for a completion."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsFloat, runtime_checkable

from tasks.errors import TaskError

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Prompt:
    """One question, as a chat, and whatever the reward needs to judge an answer to it."""

    messages: list[dict[str, str]]
    """The chat so far, each message with "role" and "content"."""
    reference: Any = None
    """Given back to the reward function; never shown to the model."""

    def __post_init__(self) -> None:
        if not self.messages:
            raise TaskError("a prompt has no messages; expected at least one, such as Prompt.ask('1 + 1 =')")
        for message in self.messages:
            check_message(message)

    @classmethod
    def ask(cls, text: str, reference: Any = None) -> Prompt:
        """A chat of one user message."""
        return cls([{"role": "user", "content": text}], reference)


def check_message(message: object) -> None:
    """Raises TaskError unless `message` is {"role": one of ROLES, "content": text}."""
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise TaskError(f"a message is {message!r:.120}; expected a dict with exactly the keys role and content")
    if message["role"] not in ROLES:
        raise TaskError(f"a message has role {message['role']!r}; expected one of {', '.join(ROLES)}")
    if not isinstance(message["content"], str):
        raise TaskError(f"a message has content of type {type(message['content']).__name__}; expected text")


@dataclass(frozen=True)
class Reward:
    """The reward of one completion, finite, and the parts it is made of, for the records only."""

    value: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of judging one completion: a reward or, if that failed, the reason. Exactly one is set."""

    reward: Reward | None
    failure: str | None

    def __post_init__(self) -> None:
        assert (self.reward is None) != (self.failure is None), "expected a reward or a failure, not both or neither"


@runtime_checkable
class Task(Protocol):
    """Prompts by index, and a reward.

    Every process builds the task for itself, so `prompt(i)` must give the same prompt in each of them.

    A task may have a method `difficulty(index) -> str | None` besides, by whose values `rapid eval` breaks its result
    down; ask for it by `difficulty_of`. And it may have `notes`, lines that a run shows at its start; by `notes_of`.
    """

    name: str

    def __len__(self) -> int:
        """Number of prompts of one epoch, at least one."""
        ...

    def prompt(self, index: int) -> Prompt:
        """The prompt of that index, 0 … len − 1, always the same one."""
        ...

    def reward(self, prompt: Prompt, completion: str) -> float | Reward | Awaitable[float | Reward]:
        """How good the completion is. May be `async def`; may raise; runs in a process of its own."""
        ...


def difficulty_of(task: Task, index: int) -> str | None:
    """How hard the prompt of that index is, in the task's own words. None from a task that does not tell."""
    tell = getattr(task, "difficulty", None)
    return None if tell is None else tell(index)


def notes_of(task: Task) -> list[str]:
    """What whoever starts a run should know about the task."""
    return list(getattr(task, "notes", ()))


def as_reward(value: object) -> Reward:
    """What a reward function returned, as a Reward. Raises ValueError when it is no finite number."""
    if isinstance(value, Reward):
        parts = {str(name): finite(part, f"part {name!r}") for name, part in value.parts.items()}
        return Reward(finite(value.value, "the reward"), parts)
    return Reward(finite(value, "the reward"))


def finite(value: object, what: str) -> float:
    """`value` as a float, numpy scalars and booleans included. Text is refused: it would hide a mistake."""
    if not isinstance(value, SupportsFloat):
        raise ValueError(f"{what} is {value!r:.80} ({type(value).__name__}); expected a finite number or a Reward")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{what} is {number}; expected a finite number")
    return number


def prompt_key(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """What makes two prompts the same question to the model."""
    return tuple((message["role"], message["content"]) for message in prompt.messages)


def check_task(task: object, name: str) -> Task:
    """`task` itself. Raises TaskError when it lacks a part of the protocol or has no prompts."""
    missing = [part for part in ("name", "__len__", "prompt", "reward") if not hasattr(task, part)]
    if missing:
        raise TaskError(
            f"task {name} is a {type(task).__name__} without {', '.join(missing)}; "
            "a task has name, __len__, prompt(index) and reward(prompt, completion), see docs/tasks.md"
        )
    assert isinstance(task, Task)
    if len(task) < 1:
        raise TaskError(f"task {name} has no prompts; expected at least one")
    return task


def check_index(index: int, length: int, name: str) -> None:
    """Raises TaskError when a task of that length has no prompt of that index."""
    if not 0 <= index < length:
        raise TaskError(f"task {name} has no prompt {index}; it has {length}, numbered from 0")
