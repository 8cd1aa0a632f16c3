"""Small word problems with whole numbers: what GSM8K asks, at the size of a model that runs on a CPU."""

from __future__ import annotations

from random import Random
from typing import Any

from pydantic import Field

from tasks.answers import judge_last_number
from tasks.config import Section, TaskConfig
from tasks.generated import GeneratedTask, Instance
from tasks.params import read_params

NAMES = ("Ava", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ivy", "Jack", "Kate", "Leo", "Mia", "Noah")
THINGS = ("apples", "books", "cards", "coins", "cookies", "eggs", "marbles", "pencils", "shells", "stamps", "stickers")
CONTAINERS = ("bags", "boxes", "packs", "jars")
GAINS = ("buys {n} more", "finds {n} more", "gets {n} more from a friend", "wins {n} more")
LOSSES = ("gives away {n}", "loses {n}", "sells {n}", "uses {n}")


class WordProblemParams(Section):
    """`[task.params]` of word_problems."""

    steps: int = Field(2, ge=1, le=6)
    """Steps of the calculation: the difficulty."""
    largest: int = Field(20, ge=3, le=10_000)
    """Largest number in the text; factors go up to a tenth of it, and 3 at least."""
    multiply: bool = True
    """Whether a problem may begin with so many boxes of so many things, or double what there is."""


class WordProblems:
    """Somebody has things, gets some and gives some away: how many are there?"""

    name = "word_problems"

    def __init__(self, params: WordProblemParams) -> None:
        self._params = params

    def draw(self, random: Random) -> Instance:
        params = self._params
        name, things = random.choice(NAMES), random.choice(THINGS)
        opening, total, taken = draw_opening(random, things, params)
        sentences = [f"{name} {opening}."]
        for _ in range(params.steps - taken):
            text, total = draw_step(random, total, params)
            sentences.append(f"Then {name} {text}.")
        sentences.append(f"How many {things} does {name} have now?")
        difficulty = "1 step" if params.steps == 1 else f"{params.steps} steps"
        return Instance(" ".join(sentences), str(total), difficulty, answer=str(total))

    def judge(self, reference: Any, completion: str) -> float:
        """1 if the last number of the completion is the answer."""
        return judge_last_number(reference, completion)


def build(config: TaskConfig, split: str) -> GeneratedTask:
    """The task of `split`. Raises TaskError for parameters that cannot be."""
    return GeneratedTask(config, WordProblems(read_params(config, WordProblemParams)), split)


def draw_opening(random: Random, things: str, params: WordProblemParams) -> tuple[str, int, int]:
    """How it begins, how many things there are then, and how many steps that took."""
    if params.multiply and random.random() < 0.5:
        count, each = random.randint(2, largest_factor(params)), random.randint(2, params.largest)
        return f"has {count} {random.choice(CONTAINERS)} with {each} {things} each", count * each, 1
    total = random.randint(2, params.largest)
    return f"has {total} {things}", total, 0


def draw_step(random: Random, total: int, params: WordProblemParams) -> tuple[str, int]:
    """What happens next, and how many things there are then: one at least."""
    kind = random.choice("+-" + ("*" if params.multiply else ""))
    if kind == "*" and total <= params.largest:
        return "doubles that number", 2 * total
    if kind == "-" and total > 2:
        number = random.randint(1, min(params.largest, total - 1))
        return random.choice(LOSSES).format(n=number), total - number
    number = random.randint(2, params.largest)
    return random.choice(GAINS).format(n=number), total + number


def largest_factor(params: WordProblemParams) -> int:
    return max(3, params.largest // 10)
