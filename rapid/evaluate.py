"""`rapid eval`: completions of the evaluation prompts by the real engine, judged, as pass@k."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.progress import Progress

from actors.engine import Engine, GenerateRequest
from actors.rollout import build_engine
from actors.settings import RolloutSettings
from actors.text import ChatText
from protocol.version import PolicyVersion
from rapid.config import RapidConfig
from rapid.errors import UsageError
from rapid.passk import pass_at_k
from rapid.preflight import load_model
from tasks import Task, TaskError, build_task
from tasks.runner import RewardRunner


def parse_ks(text: str) -> list[int]:
    """Values of k from "1,8". Raises UsageError."""
    try:
        ks = sorted({int(part) for part in text.split(",")})
    except ValueError:
        ks = []
    if not ks or ks[0] < 1:
        raise UsageError(f"--k {text!r}: expected whole numbers from 1, such as 1,8")
    return ks


def evaluate_recipe(config: RapidConfig, checkpoint: Path | None, ks: list[int]) -> None:
    """Evaluate the recipe's model, or a checkpoint of it, and print the table. Raises UsageError."""
    model_dir = load_model(config) if checkpoint is None else _checkpoint_model(checkpoint)
    try:
        task = build_task(config.task, split="eval")
    except TaskError as error:
        raise UsageError(str(error)) from None
    values = asyncio.run(_measure(config, task, model_dir, max(ks)))
    console = Console(highlight=False)
    console.print(f"{len(values)} evaluation prompts, {max(ks)} completions each, {model_dir}")
    for k in ks:
        rates = [pass_at_k(len(rewards), sum(value >= 1.0 for value in rewards), k) for rewards in values]
        console.print(f"  pass@{k:<4} {fmean(rates):.3f}")
    console.print(f"  mean reward {fmean(value for rewards in values for value in rewards):.3f}")


def _checkpoint_model(checkpoint: Path) -> Path:
    for folder in (checkpoint / "model", checkpoint):
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(
        f"--checkpoint {checkpoint}: expected a checkpoint's folder, such as runs/NAME/checkpoints/step-000040"
    )


async def _measure(config: RapidConfig, task: Task, model_dir: Path, num_samples: int) -> list[list[float]]:
    """Rewards by prompt, `num_samples` each; a completion that cannot be judged counts 0."""
    text = ChatText(model_dir, config.model.system_prompt)
    with tempfile.TemporaryDirectory(prefix="rapid-eval-") as folder:
        engine = build_engine(_settings(config, model_dir, Path(folder)), text.stop_token_ids)
        runner = RewardRunner(config.task, config.actors.reward_workers, config.actors.reward_timeout_s, split="eval")
        try:
            await engine.start(PolicyVersion(1, 0))
            return await _ask_all(config, task, engine, text, runner, num_samples)
        finally:
            await engine.close()
            await runner.close()


async def _ask_all(
    config: RapidConfig, task: Task, engine: Engine, text: ChatText, runner: RewardRunner, num_samples: int
) -> list[list[float]]:
    room = asyncio.Semaphore(max(1, config.actors.max_sequences // num_samples))

    async def ask(index: int) -> list[float]:
        async with room:
            request = GenerateRequest(
                entry_id=f"eval:{index}",
                prompt_token_ids=text.encode(task.prompt(index).messages),
                num_completions=num_samples,
                max_tokens=config.actors.max_tokens,
                temperature=config.actors.temperature,
                seed=config.run.seed,
            )
            completions = await engine.generate(request)
        outcomes = await runner.score(index, [text.decode(completion.token_ids) for completion in completions])
        progress.advance(bar)
        return [outcome.reward.value if outcome.reward is not None else 0.0 for outcome in outcomes]

    with Progress(transient=True) as progress:
        bar = progress.add_task("evaluating", total=len(task))
        return await asyncio.gather(*(ask(index) for index in range(len(task))))


def _settings(config: RapidConfig, model_dir: Path, folder: Path) -> RolloutSettings:
    return RolloutSettings(
        name="actor-0",
        hub_address="",
        model_path=model_dir,
        model=config.model,
        actors=config.actors,
        schedule=config.schedule,
        weights=config.weights,
        task=config.task,
        telemetry=config.telemetry,
        seed=config.run.seed,
        cores=sorted(os.sched_getaffinity(0)),
        run_dir=folder,
    )
