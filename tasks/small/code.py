"""Write a small Python function: generated specifications, hidden tests, run in the sandbox.

[task]
name = "tasks.small.code:SmallCode"
params = {levels = [2, 3]}
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tasks.code.extract import extract_program
from tasks.errors import TaskError
from tasks.sandbox import Limits, Sandbox, Suite, WayName, build_suite, choose
from tasks.task import Prompt, Reward, check_index

CONSTANTS = range(2, 14)
EVAL_SHARE = 5  # one specification in five is for evaluation
NUM_TESTS = 6
NAMES = ("f", "g", "h", "calc", "solve", "compute", "result", "value")


@dataclass(frozen=True)
class Family:
    """Specifications of one form. `{c}` and `{d}` are replaced by constants, in the text and in the solution."""

    level: int
    arguments: str
    text: str
    solution: str

    @property
    def num_constants(self) -> int:
        return ("{c}" in self.text) + ("{d}" in self.text)


FAMILIES = (
    Family(1, "x", "x plus {c}", "x + {c}"),
    Family(1, "x", "x minus {c}", "x - {c}"),
    Family(1, "x", "{c} minus x", "{c} - x"),
    Family(1, "x", "{c} times x", "{c} * x"),
    Family(1, "x", "the remainder of x divided by {c}", "x % {c}"),
    Family(1, "x", "the larger one of x and {c}", "max(x, {c})"),
    Family(2, "x", "{c} times x, plus {d}", "{c} * x + {d}"),
    Family(2, "x", "the sum of x and {c}, times {d}", "(x + {c}) * {d}"),
    Family(2, "x", "x squared, minus {c}", "x ** 2 - {c}"),
    Family(2, "a, b", "the sum of a and b, minus {c}", "a + b - {c}"),
    Family(2, "a, b", "the product of a and b, plus {c}", "a * b + {c}"),
    Family(2, "a, b", "{c} times a, minus {d} times b", "{c} * a - {d} * b"),
    Family(2, "a, b", "the larger one of a and b, plus {c}", "max(a, b) + {c}"),
    Family(3, "xs", "the number of elements of the list xs, plus {c}", "len(xs) + {c}"),
    Family(3, "xs", "the sum of the list xs, times {c}", "sum(xs) * {c}"),
    Family(3, "xs", "the largest element of the list xs, minus {c}", "max(xs) - {c}"),
    Family(3, "xs", "the list of the elements of xs, each times {c}", "[x * {c} for x in xs]"),
    Family(3, "xs", "the list of those elements of xs that are greater than {c}", "[x for x in xs if x > {c}]"),
    Family(3, "xs", "how many elements of the list xs are greater than {c}", "sum(x > {c} for x in xs)"),
    Family(3, "s", "the string s repeated {c} times", "s * {c}"),
    Family(3, "s", "the last {c} characters of the string s", "s[-{c}:]"),
    Family(3, "s", "the string s without its first {c} characters", "s[{c}:]"),
)
LEVELS = (1, 2, 3)
DRAWS: dict[str, Callable[[random.Random], Any]] = {
    "xs": lambda draw: [draw.randint(0, 15) for _ in range(draw.randint(3, 8))],
    "s": lambda draw: "".join(draw.choices("abcdefgh", k=draw.randint(14, 20))),
}


@dataclass(frozen=True)
class Specification:
    """One function to be written."""

    name: str
    arguments: str
    text: str
    solution: str
    level: int

    @property
    def question(self) -> str:
        return (
            f"Write a Python function {self.name}({self.arguments}) that returns {self.text}. "
            "Answer with the code alone."
        )

    def suite(self, seed: str) -> Suite:
        """Calls with arguments drawn by `seed`, and what the solution returns."""
        draw = random.Random(seed)
        names = self.arguments.split(", ")
        tests = []
        for _ in range(NUM_TESTS):
            values = [DRAWS.get(name, draw_integer)(draw) for name in names]
            # Ours, not the model's: the solution is one of FAMILIES.
            expected = eval(self.solution, {}, dict(zip(names, values, strict=True)))
            tests.append(f"assert {self.name}({', '.join(map(repr, values))}) == {expected!r}")
        return build_suite("\n".join(tests), (self.name,))


class SmallCode:
    """The levels are 1: one operation, 2: two of them, 3: lists and strings."""

    def __init__(
        self,
        levels: Sequence[int] = (1, 2),
        size: int = 2000,
        seed: int = 0,
        time_limit_s: float = 1.0,
        sandbox: WayName = "auto",
        split: str = "train",
    ) -> None:
        if not isinstance(levels, Sequence) or not levels or any(level not in LEVELS for level in levels):
            raise TaskError(f"task.params.levels is {levels!r}; expected some of {list(LEVELS)}, such as [1, 2]")
        self.name = f"small code, levels {', '.join(map(str, sorted(set(levels))))}"
        way = choose(sandbox)
        self.notes = [way.note] if way.note else []
        self._limits, self._way = Limits(time_s=time_limit_s), way.name
        self._sandbox: Sandbox | None = None
        self._specifications = draw_specifications(levels, size, seed, split)

    def __len__(self) -> int:
        return len(self._specifications)

    def prompt(self, index: int) -> Prompt:
        check_index(index, len(self), self.name)
        specification = self._specifications[index]
        return Prompt.ask(specification.question, specification)

    def difficulty(self, index: int) -> str:
        """The level of the family."""
        check_index(index, len(self), self.name)
        return f"level {self._specifications[index].level}"

    def reward(self, prompt: Prompt, completion: str) -> Reward:
        """1 if the function is right for all hidden arguments, else 0. Raises SandboxError."""
        if self._sandbox is None:
            self._sandbox = Sandbox(self._limits, self._way)
        specification: Specification = prompt.reference
        program = extract_program(completion, (specification.name,))
        verdict = self._sandbox.check(program, specification.suite(specification.question))
        return Reward(float(verdict.passed))


def draw_integer(draw: random.Random) -> int:
    return draw.randint(-20, 20)


def draw_specifications(levels: Sequence[int], size: int, seed: int, split: str) -> list[Specification]:
    """`size` specifications, each family as often as the others.

    A family's constants belong either to training or to evaluation, whatever the seed, so that no function that is
    asked for in evaluation is ever trained on.
    """
    draw = random.Random(f"{split} {seed}")
    families = [family for family in FAMILIES if family.level in levels]
    constants = {family: split_constants(family, split) for family in families}
    specifications = []
    for number in range(size):
        family = families[number % len(families)]
        c, d = draw.choice(constants[family])
        text, solution = (part.replace("{c}", str(c)).replace("{d}", str(d)) for part in (family.text, family.solution))
        specifications.append(Specification(draw.choice(NAMES), family.arguments, text, solution, family.level))
    draw.shuffle(specifications)
    return specifications


def split_constants(family: Family, split: str) -> list[tuple[int, int]]:
    """The values of c and d that `split` may use."""
    pairs = list(product(CONSTANTS, CONSTANTS if family.num_constants > 1 else [0]))
    random.Random(family.text).shuffle(pairs)
    num_eval = -(-len(pairs) // EVAL_SHARE)
    return pairs[:num_eval] if split == "eval" else pairs[num_eval:]
