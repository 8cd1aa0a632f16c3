"""Two generated tasks with prompts of a few characters, for models of a million parameters.

    Sums        "47+8"         -> "55"
    Countdown   "3 5 7: 22"    -> "3*5+7": every number once, with + - *; there may be several right answers

Entry i is drawn from (seed, split, i) alone. A problem belongs to one split by its own text, so that what is evaluated
was never trained on.
"""

from __future__ import annotations

import abc
import ast
import random
import zlib
from collections.abc import Sequence

from tasks import Prompt

EVAL_SHARE = 8
"""One problem in so many is held out."""


class _Puzzles(abc.ABC):
    """Draws problems until one belongs to the split."""

    name = ""

    def __init__(self, size: int, split: str, seed: int) -> None:
        self._size, self._split, self._seed = size, split, seed

    def __len__(self) -> int:
        return self._size

    def prompt(self, index: int) -> Prompt:
        """The same problem for an index every time."""
        draw = random.Random(f"{self.name}/{self._split}/{self._seed}/{index}")
        while True:
            question, answer = self.draw(draw)
            if is_held_out(question) == (self._split == "eval"):
                return Prompt.ask(question, reference=answer)

    @abc.abstractmethod
    def draw(self, random_source: random.Random) -> tuple[str, str]:
        """A question and a right answer."""


class Sums(_Puzzles):
    """Add numbers; `digits` has the most digits of each."""

    def __init__(
        self, digits: Sequence[int] = (2, 1), size: int = 100_000, split: str = "train", seed: int = 0
    ) -> None:
        super().__init__(size, split, seed)
        self.name, self._digits = f"sums of {', '.join(map(str, digits))} digits", digits

    def draw(self, random_source: random.Random) -> tuple[str, str]:
        """Numbers."""
        numbers = [random_source.randrange(10**count) for count in self._digits]
        return "+".join(map(str, numbers)), str(sum(numbers))

    def reward(self, prompt: Prompt, completion: str) -> float:
        """1 for the sum, and nothing beside it."""
        return float(completion.strip() == prompt.reference)


class Countdown(_Puzzles):
    """Reach a number with + - * and each of the given numbers once."""

    def __init__(
        self, numbers: int = 3, largest: int = 9, size: int = 100_000, split: str = "train", seed: int = 0
    ) -> None:
        super().__init__(size, split, seed)
        self.name, self._numbers, self._largest = f"countdown of {numbers} numbers", numbers, largest

    def draw(self, random_source: random.Random) -> tuple[str, str]:
        """Numbers in a random order, a target, and the expression it came from."""
        while True:
            numbers = [random_source.randint(1, self._largest) for _ in range(self._numbers)]
            signs = [random_source.choice("+-*") for _ in numbers[1:]]
            expression = str(numbers[0]) + "".join(
                f"{sign}{number}" for sign, number in zip(signs, numbers[1:], strict=True)
            )
            value = evaluate(expression, numbers)
            if value is not None and 0 <= value <= 99:
                given = random_source.sample(numbers, len(numbers))
                return f"{' '.join(map(str, given))}: {value}", expression

    def reward(self, prompt: Prompt, completion: str) -> float:
        """1 for any expression of just these numbers that has this value."""
        given, _, target = prompt.messages[-1]["content"].partition(": ")
        return float(evaluate(completion.strip(), [int(number) for number in given.split()]) == int(target))


def is_held_out(question: str) -> bool:
    """Whether a problem is for evaluation. Not `hash`, which differs from process to process."""
    return zlib.crc32(question.encode()) % EVAL_SHARE == 0


def evaluate(expression: str, numbers: list[int]) -> int | None:
    """The value of an expression that uses just these numbers, each once; None for anything else."""
    try:
        tree = ast.parse(expression, mode="eval")
        found: list[int] = []
        value = _value(tree.body, found)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return value if sorted(found) == sorted(numbers) else None


def _value(node: ast.expr, found: list[int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        found.append(node.value)
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        left, right = _value(node.left, found), _value(node.right, found)
        if isinstance(node.op, ast.Add):
            return left + right
        return left - right if isinstance(node.op, ast.Sub) else left * right
    raise ValueError(f"{ast.dump(node)} is no part of an expression")
