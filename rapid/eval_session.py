"""An engine that answers evaluation prompts, for `rapid eval`: started once, for any number of weights."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from actors.engine import Engine
from actors.evaluation.measure import Examiner
from actors.evaluation.spec import EvalSpec
from actors.evaluation.summary import summarise
from actors.rollout import build_engine
from actors.settings import RolloutSettings
from actors.text import ChatText
from protocol.config import WeightsConfig
from protocol.version import PolicyVersion
from rapid.config import RapidConfig
from tasks import Task
from tasks.runner import RewardRunner


class EvalSession:
    """Use `open_session`."""

    def __init__(self, spec: EvalSpec, engine: Engine, examiner: Examiner) -> None:
        self.engine = engine
        self._spec, self._examiner = spec, examiner

    async def evaluate(self, what: str) -> dict[str, Any]:
        """Ask everything of the weights loaded now: the map of actors.evaluation.summary, "seconds" with it.

        Raises EngineDiedError.
        """
        begin_s = time.monotonic()
        with Progress(transient=True, disable=not Console().is_terminal) as progress:
            bar = progress.add_task(what, total=self._examiner.num_prompts)
            outcomes = await self._examiner.ask_all(lambda: progress.advance(bar))
        return {**summarise(outcomes, self._spec), "seconds": round(time.monotonic() - begin_s, 3)}


@asynccontextmanager
async def open_session(
    config: RapidConfig, task: Task, spec: EvalSpec, model_dir: Path, version: PolicyVersion
) -> AsyncIterator[EvalSession]:
    """Start the engine with the model of a folder, named `version`. Raises EngineError.

    Args:
        config: the recipe, or the run's.
        task: its evaluation prompts.
    """
    text = ChatText(model_dir, config.model.system_prompt)
    with tempfile.TemporaryDirectory(prefix="rapid-eval-") as folder:
        settings = _settings(config, model_dir, Path(folder))
        engine = build_engine(settings, text.stop_token_ids)
        runner = RewardRunner(config.task, config.actors.reward_workers, config.actors.reward_timeout_s, split="eval")
        try:
            await engine.start(version)
            yield EvalSession(spec, engine, Examiner(spec, settings, task, text, engine, runner))
        finally:
            await engine.close()
            await runner.close()


def _settings(config: RapidConfig, model_dir: Path, folder: Path) -> RolloutSettings:
    return RolloutSettings(
        name="eval-0",
        hub_address="",
        model_path=model_dir,
        model=config.model,
        actors=config.actors,
        schedule=config.schedule,
        # There is no learner here: weights come from files, whichever way they travelled in the run.
        weights=WeightsConfig(),
        task=config.task,
        telemetry=config.telemetry,
        seed=config.run.seed,
        cores=sorted(os.sched_getaffinity(0)),
        run_dir=folder,
    )
