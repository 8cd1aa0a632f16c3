"""Asks an engine the evaluation prompts and has the answers judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from actors.engine import Completion, Engine, EngineDiedError, EngineError, GenerateRequest
from actors.evaluation.spec import EvalSpec
from actors.evaluation.summary import Judged, PromptOutcome
from actors.settings import RolloutSettings
from actors.text import ChatText
from tasks import difficulty_of


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
        """An outcome for each prompt, in order; `on_done` is called after each. Raises EngineDiedError."""
        room = asyncio.Semaphore(max(1, self._settings.actors.max_sequences // self._spec.samples))

        async def ask(index: int) -> PromptOutcome:
            async with room:
                try:
                    completions = await self._answer(index)
                except PromptFailedError as error:
                    return self._failed(index, str(error))
                finally:
                    on_done()
            return await self._judge(index, completions)

        return await asyncio.gather(*(ask(index) for index in range(self._num_prompts)))

    async def _answer(self, index: int) -> list[Completion]:
        """The completions drawn, and the greedy one after them if there is to be one."""
        try:
            prompt = self._text.encode(self._task.prompt(index).messages)
        except Exception as error:  # The task may be the user's: anything may happen in it.
            raise PromptFailedError(f"prompt {index}: {type(error).__name__}: {error}") from error
        limit = self._settings.model.max_context
        if len(prompt) >= limit:
            raise PromptFailedError(f"prompt {index} has {len(prompt)} tokens, model.max_context is {limit}")
        requests = [self._request(f"eval:{index}", prompt, self._spec.samples, self._spec.temperature)]
        if self._spec.greedy:
            requests.append(self._request(f"greedy:{index}", prompt, 1, 0.0))
        try:
            answers = await asyncio.gather(*(self._engine.generate(request) for request in requests))
        except EngineDiedError:
            raise
        except EngineError as error:
            raise PromptFailedError(f"prompt {index}: {error}") from error
        return [completion for answer in answers for completion in answer]

    def _request(self, name: str, prompt: np.ndarray, count: int, temperature: float) -> GenerateRequest:
        settings = self._settings
        return GenerateRequest(
            entry_id=name,
            prompt_token_ids=prompt,
            num_completions=count,
            max_tokens=min(settings.actors.max_tokens, settings.model.max_context - len(prompt)),
            temperature=temperature,
            seed=settings.seed,
        )

    async def _judge(self, index: int, completions: Sequence[Completion]) -> PromptOutcome:
        outcomes = await self._runner.score(index, [self._text.decode(one.token_ids) for one in completions])
        judged = [
            Judged(
                reward=None if outcome.reward is None else outcome.reward.value,
                num_tokens=len(completion.token_ids),
                is_truncated=completion.stop_reason == "length",
                failure=outcome.failure or "",
            )
            for completion, outcome in zip(completions, outcomes, strict=True)
        ]
        return self._outcome(index, judged)

    def _failed(self, index: int, reason: str) -> PromptOutcome:
        return self._outcome(index, [Judged(None, failure=reason)] * (self._spec.samples + self._spec.greedy))

    def _outcome(self, index: int, judged: Sequence[Judged]) -> PromptOutcome:
        count = self._spec.samples
        return PromptOutcome(
            judged[:count], judged[count] if self._spec.greedy else None, difficulty_of(self._task, index)
        )
