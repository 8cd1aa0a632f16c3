"""From a leased prompt to a rewarded group: tokenise, generate, decode, score, assemble."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from actors.activity import Activity
from actors.engine import Completion, Engine, EngineDiedError, EngineError, GenerateRequest
from actors.group_builder import build_group
from actors.settings import RolloutSettings
from actors.text import ChatText
from protocol.group import Group
from protocol.messages import WorkItem


class GroupFailedError(Exception):
    """This lease cannot be turned into a group; its text tells why."""


class GroupMaker:
    """Makes groups, many at a time.

    Args:
        task: gives the prompt of an index.
        runner: rewards completions; `await score(index, completions)` gives an outcome for each, in order.
        on_generated: called each time that a lease's group leaves the engine.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        task: Any,
        text: ChatText,
        engine: Engine,
        runner: Any,
        activity: Activity,
        on_generated: Callable[[WorkItem], None],
    ) -> None:
        self._settings, self._task, self._text = settings, task, text
        self._engine, self._runner, self._activity = engine, runner, activity
        self._on_generated = on_generated

    async def make(self, item: WorkItem) -> Group:
        """The group of this lease.

        Raises:
            GroupFailedError: prompt, engine or reward failed, with the reason.
            EngineDiedError: nothing can be generated any more.
        """
        started_s = time.time()
        prompt = self._encode(item)
        completions = await self._generate(item, prompt)
        rewards = await self._score(item, completions)
        try:
            return build_group(
                item.entry_id, prompt, completions, rewards, self._settings.name, started_s, time.time() - started_s
            )
        except ValueError as error:
            raise GroupFailedError(str(error)) from error

    def _encode(self, item: WorkItem) -> np.ndarray:
        try:
            token_ids = self._text.encode(self._task.prompt(item.index).messages)
        except Exception as error:  # The task may be the user's: anything may happen in it.
            raise GroupFailedError(f"prompt {item.index}: {type(error).__name__}: {error}") from error
        if len(token_ids) >= self._settings.model.max_context:
            raise GroupFailedError(
                f"prompt {item.index} has {len(token_ids)} tokens, expected fewer than model.max_context = "
                f"{self._settings.model.max_context}: raise it or leave the prompt out"
            )
        return token_ids

    async def _generate(self, item: WorkItem, prompt: np.ndarray) -> list[Completion]:
        config = self._settings.actors
        request = GenerateRequest(
            entry_id=item.entry_id,
            prompt_token_ids=prompt,
            num_completions=config.group_size,
            max_tokens=min(config.max_tokens, self._settings.model.max_context - len(prompt)),
            temperature=config.temperature,
            # A prompt that is tried again should not be answered as before.
            seed=self._settings.seed + item.attempt,
        )
        self._activity.begin_generating()
        try:
            completions = await self._engine.generate(request)
        except EngineDiedError:
            raise
        except EngineError as error:
            raise GroupFailedError(str(error)) from error
        finally:
            self._activity.end_generating()
            self._on_generated(item)
        self._activity.count_completions(completions)
        return completions

    async def _score(self, item: WorkItem, completions: list[Completion]) -> list[Any]:
        started_s = time.monotonic()
        texts = [self._text.decode(completion.token_ids) for completion in completions]
        outcomes = await self._runner.score(item.index, texts)
        failures = [outcome.failure for outcome in outcomes if outcome.reward is None]
        self._activity.count_reward(time.monotonic() - started_s, len(failures))
        if failures:
            raise GroupFailedError(f"reward of {len(failures)} of {len(outcomes)} completions: {failures[0]}")
        return [outcome.reward for outcome in outcomes]
