"""Derivation: bring a sum to one number, one operation at a time. Each step must follow from the one before.

3 + 8 - 5 = 11 - 5 = 6        3 + 8 - 5 = 3 + 3 = 6        both are derivations of 6
"""

from __future__ import annotations

import operator
import re
import string
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

from pydantic import Field, model_validator

from tasks.config import Section, TaskConfig
from tasks.countdown import SIGNS
from tasks.errors import TaskError
from tasks.generated import GeneratedTask, Instance
from tasks.params import read_params

OPERATIONS: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
LARGEST = 999_999
MAX_TRIES = 10_000
# Of what an expression consists; anything else in it makes it none.
TOKEN = re.compile(r"[0-9]{1,6}|\S")

Expression = list[int | str]
"""Numbers at even places, operators between them."""


class DerivationParams(Section):
    """`[task.params]` of derivation."""

    terms: int = Field(3, ge=2, le=8)
    """Numbers in the expression: one more than there are steps, which are the difficulty."""
    fewest: int | None = Field(None, ge=2)
    """Numbers in the shortest expressions: each length from this to `terms` is as frequent. None has but one length."""
    operators: str = Field("+-", min_length=1)
    """Some of + - *."""
    smallest: int = Field(1, ge=0)
    """Smallest number in the expression."""
    largest: int = Field(9, le=10_000)
    """Largest number in the expression."""

    @model_validator(mode="after")
    def check_together(self) -> DerivationParams:
        """Raises ValueError for an operator that is none, and for numbers that do not fit each other."""
        if unknown := set(self.operators) - OPERATIONS.keys():
            raise ValueError(f"operators is {self.operators!r}: {sorted(unknown)} are none of + - *")
        if self.fewest is not None and self.fewest > self.terms:
            raise ValueError(f"fewest is {self.fewest} and terms {self.terms}: expected no more than that")
        if self.largest < self.smallest:
            raise ValueError(f"smallest is {self.smallest} and largest {self.largest}: expected no more than that")
        return self


class Derivation:
    """Draws expressions, and checks derivations step by step."""

    name = "derivation"

    def __init__(self, params: DerivationParams) -> None:
        self._params = params

    def draw(self, random: Random) -> Instance:
        """An expression that can be derived from the left. Raises TaskError if there seems to be none."""
        params = self._params
        terms = params.terms if params.fewest is None else random.randint(params.fewest, params.terms)
        for _ in range(MAX_TRIES):
            expression: Expression = [random.randint(params.smallest, params.largest)]
            for _ in range(terms - 1):
                expression += [random.choice(params.operators), random.randint(params.smallest, params.largest)]
            derivation = [expression]
            while following := successors(derivation[-1]):
                derivation.append(following[0])
            if len(derivation) == terms:
                question = f"Reduce {write(expression)} to one number, one operation at a time."
                difficulty = "1 step" if terms == 2 else f"{terms - 1} steps"
                return Instance(question, expression, difficulty, answer=" = ".join(map(write, derivation)))
        raise TaskError(f"task.params of derivation leave no expression that can be derived: {params.model_dump()}")

    def judge(self, reference: Any, completion: str) -> float:
        """1 if the last line with a sign of equality derives one number from the expression in single steps, else 0."""
        lines = [line for line in completion.replace("**", " ").splitlines() if "=" in line]
        derivation = [read(part) for part in lines[-1].rstrip(string.whitespace + ".").split("=")] if lines else []
        if not derivation or derivation[0] != reference or len(derivation[-1]) != 1:
            return 0.0
        return float(all(after in successors(before) for before, after in pairwise(derivation)))


def build(config: TaskConfig, split: str) -> GeneratedTask:
    """The task of `split`. Raises TaskError for parameters that cannot be."""
    return GeneratedTask(config, Derivation(read_params(config, DerivationParams)), split)


def successors(expression: Expression) -> list[Expression]:
    """Those that follow by one operation on two neighbours, with the leftmost operation first.

    Products come before the sums that they are part of, nothing is taken out of what is subtracted, and no number falls
    below 0 or grows beyond LARGEST.
    """
    found: list[Expression] = []
    for place in range(1, len(expression), 2):
        left, sign, right = expression[place - 1 : place + 2]
        before, after = expression[place - 2] if place > 1 else None, (*expression, None, None)[place + 2]
        if sign != "*" and ("*" in (before, after) or before == "-"):
            continue
        value = OPERATIONS[str(sign)](int(left), int(right))
        if 0 <= value <= LARGEST:
            found.append([*expression[: place - 1], value, *expression[place + 2 :]])
    return found


def write(expression: Expression) -> str:
    return " ".join(map(str, expression))


def read(text: str) -> Expression:
    """The expression that `text` is; empty if it is none."""
    tokens = TOKEN.findall(text.translate(SIGNS))
    expression: Expression = [int(token) if token[0] in string.digits else token for token in tokens]
    numbers, operators = expression[::2], expression[1::2]
    is_one = (
        len(tokens) % 2 == 1 and all(isinstance(each, int) for each in numbers) and set(operators) <= OPERATIONS.keys()
    )
    return expression if is_one else []
