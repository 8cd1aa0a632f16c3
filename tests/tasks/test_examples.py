"""The example tasks work as docs/tasks.md says."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path

from tasks import EvalConfig, Reward, TaskConfig, build_task, validate
from tasks.examples.digits import Digits
from tasks.examples.reverse import Reverse
from tasks.runner import RewardRunner
from tasks.task import prompt_key


def test_reverse_rewards_letters_in_their_places() -> None:
    task = Reverse(letters=3)
    prompt = task.prompt(0)
    right = prompt.reference
    assert right == prompt.messages[0]["content"][-3:][::-1]
    assert task.reward(prompt, f" {right}.") == Reward(1.0, {"exact": 1.0})
    # One letter of three, then two of four because of one too many.
    assert task.reward(prompt, right[0] + "zz") == Reward(1 / 3, {"exact": 0.0})
    assert task.reward(prompt, right[:2] + "zz") == Reward(0.5, {"exact": 0.0})
    assert task.reward(prompt, "") == Reward(0.0, {"exact": 0.0})


def test_reverse_runs_by_its_name_and_evaluates_on_words_of_its_own() -> None:
    config = TaskConfig(
        name="tasks.examples.reverse:Reverse", params={"letters": 4, "size": 50}, eval=EvalConfig(size=20)
    )
    assert validate(config) == []
    train, held = build_task(config), build_task(config, "eval")
    keys = {prompt_key(held.prompt(index)) for index in range(len(held))}
    assert not keys & {prompt_key(train.prompt(index)) for index in range(len(train))}

    async def judge() -> list[float]:
        async with RewardRunner(config, workers=1, timeout_s=20.0) as runner:
            outcomes = await runner.score(2, [train.prompt(2).reference, ""])
        return [outcome.reward.value for outcome in outcomes if outcome.reward is not None]

    assert asyncio.run(judge()) == [1.0, 0.0]


def test_digits_rewards_their_share() -> None:
    task = Digits(size=10)
    assert [task.reward(task.prompt(0), text) for text in ("123", "1a", "ab", "")] == [1.0, 0.5, 0.0, 0.0]
    assert task.prompt(0) != Digits(size=10, split="eval").prompt(0)


def test_the_documentation_shows_the_example_as_it_is() -> None:
    root = Path(__file__).resolve().parents[2]
    source = (root / "tasks" / "examples" / "reverse.py").read_text()
    example = source[source.index("class Reverse:") :]
    assert f"```python\n{example}```" in (root / "docs" / "tasks.md").read_text()


def test_every_section_that_the_documentation_shows_is_accepted() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text()
    sections = [tomllib.loads(block)["task"] for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    hub = next(section for section in sections if section.get("name") == "huggingface")
    configs = [TaskConfig(**(section if "name" in section else {**hub, **section})) for section in sections]
    named = ["huggingface", "countdown", "derivation", "word_problems"]
    assert [config.kind for config in configs] == [
        *named,
        "reasoning_gym",
        "huggingface",
        "mbpp_plus",
        "huggingface",
        "user",
    ]
