"""Asks an engine the evaluation prompts and has the answers judged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from actors.engine import Completion, Engine, EngineDiedError, EngineError, GenerateRequest
from actors.evaluation.spec import EvalSpec
from actors.evaluation.summary import Judged, PromptOutcome
from actors.settings import RolloutSettings
from actors.text import ChatText
from tasks import difficulty_of

log = logging.getLogger(__name__)


class PromptFailedError(Exception):
    """A prompt could not be made or answered; its text tells why."""


class Examiner:
    """Puts a task's evaluation prompts to an engine, as many at a time as it decodes at once.

    Args:
        task: the evaluation's prompts; `difficulty(index)`, where it has that, names a level.
        runner: rewards completions of these prompts; `await score(index, completions)` gives an outcome for each.
    """

    def __init__(
        self,
        spec: EvalSpec,
        settings: RolloutSettings,
        task: Any,
        text: ChatText,
        engine: Engine,
        runner: Any,
    ) -> None:
        self._spec, self._settings = spec, settings
        self._task, self._text, self._engine, self._runner = task, text, engine, runner
        self._num_prompts = len(task) if spec.prompts is None else min(spec.prompts, len(task))

    @property
    def num_prompts(self) -> int:
        """Prompts that will be asked."""
        return self._num_prompts

    async def ask_all(self, on_done: Callable[[], None] = lambda: None) -> list[PromptOutcome]:
        """An outcome for each prompt, in order; `on_done` is called after each. Raises EngineDiedError.

        The greedy answers come after all others: a decoding step with one of them among its sequences cannot be drawn
        in one pass (actors.sampler).
        """
        spec = self._spec
        drawn = await self._ask_each("eval", spec.samples, spec.temperature, on_done)
        greedy = await self._ask_each("greedy", 1, 0.0) if spec.greedy else None
        return [
            PromptOutcome(drawn[index], greedy[index][0] if greedy else None, level)
            for index, level in enumerate(self._levels())
        ]

    def _levels(self) -> list[str | None]:
        """How hard each prompt is. None where the task does not tell, or fails to: the answers are not lost with it."""
        levels: list[str | None] = []
        failures = []
        for index in range(self._num_prompts):
            level = None
            try:
                level = difficulty_of(self._task, index)
            except Exception as error:  # The task may be the user's: anything may happen in it.
                failures.append(f"difficulty({index}) raised {type(error).__name__}: {error}")
            levels.append(level)
        if failures:
            log.warning("%d prompts are left out of the difficulties: %s", len(failures), failures[0])
        return levels

    async def _ask_each(
        self, name: str, count: int, temperature: float, on_done: Callable[[], None] = lambda: None
    ) -> list[list[Judged]]:
        """So many completions of each prompt, judged. Rewards of some are computed while others are generated."""
        room = asyncio.Semaphore(max(1, self._settings.actors.max_sequences // count))

        async def ask(index: int) -> list[Judged]:
            async with room:
                try:
                    completions = await self._answer(f"{name}:{index}", index, count, temperature)
                except PromptFailedError as error:
                    return [Judged(None, failure=str(error))] * count
                finally:
                    on_done()
            return await self._judge(index, completions)

        return await asyncio.gather(*(ask(index) for index in range(self._num_prompts)))

    async def _answer(self, name: str, index: int, count: int, temperature: float) -> list[Completion]:
        settings = self._settings
        prompt, limit = self._encode(index), settings.model.max_context
        if len(prompt) >= limit:
            raise PromptFailedError(f"prompt {index} has {len(prompt)} tokens, model.max_context is {limit}")
        request = GenerateRequest(
            entry_id=name,
            prompt_token_ids=prompt,
            num_completions=count,
            max_tokens=min(settings.actors.max_tokens, limit - len(prompt)),
            temperature=temperature,
            seed=settings.seed,
        )
        try:
            return await self._engine.generate(request)
        except EngineDiedError:
            raise
        except EngineError as error:
            raise PromptFailedError(f"prompt {index}: {error}") from error

    def _encode(self, index: int) -> np.ndarray:
        try:
            return self._text.encode(self._task.prompt(index).messages)
        except Exception as error:  # The task may be the user's: anything may happen in it.
            raise PromptFailedError(f"prompt {index}: {type(error).__name__}: {error}") from error

    async def _judge(self, index: int, completions: Sequence[Completion]) -> list[Judged]:
        outcomes = await self._runner.score(index, [self._text.decode(one.token_ids) for one in completions])
        return [
            Judged(
                reward=None if outcome.reward is None else outcome.reward.value,
                num_tokens=len(completion.token_ids),
                is_truncated=completion.stop_reason == "length",
                failure=outcome.failure or "",
            )
            for completion, outcome in zip(completions, outcomes, strict=True)
        ]
