"""Countdown: reach a target from given numbers by + - * /. A proof in small: hard to find, easy to check."""

from __future__ import annotations

import ast
import re
from collections import Counter
from fractions import Fraction
from random import Random
from typing import Any

from pydantic import Field, model_validator

from tasks.config import Section, TaskConfig
from tasks.errors import TaskError
from tasks.generated import GeneratedTask, Instance
from tasks.params import read_params

# A run of what expressions are made of; the sign "=" ends it, as in "3 + 4 = 7". It begins neither within a number
# nor behind a sign: "-3 + 4" holds no 3 + 4.
RUN = re.compile(r"(?<![\w.^+\-*/])[0-9(][0-9 \t+\-*/()]*")
# An expression that was cut out of a larger one is none, also where blanks stand between. Words and a dash do not go on
# with an expression, though, and a sign that begins a line is that of a list. What makes it a larger one:
BEFORE = re.compile(r"(?:[\^%/]|[0-9)!=][ \t]*[+*-]|\b[^\W\d][ \t]*[+*-]|\w[ \t]+[+*])[ \t]+\Z")
CONTINUES = re.compile(
    r"\w|\.[0-9]|[ \t]*(?:[\^%]|!(?!=)|[+*/][ \t+\-*/(]*[\w\\√]|-[ \t+\-*/(]*(?:[\\√]|[^\W\d](?!\w)|\w+\())"
)
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
MAX_CHARACTERS = 200
MAX_TRIES = 10_000
NUMERALS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
OPERATORS = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div}


class CountdownParams(Section):
    """`[task.params]` of countdown."""

    numbers: int = Field(3, ge=2, le=8)
    """Numbers given."""
    fewest: int | None = Field(None, ge=2)
    """Fewest numbers given, where how many is drawn evenly from here to `numbers`. None gives always `numbers`."""
    operations: int | None = Field(None, ge=1)
    """Operations of the shortest way that the generator knows: the difficulty. None uses all numbers."""
    operators: str = Field("+-*/", min_length=1)
    """Those that the generator's own way takes; an answer may take any."""
    smallest: int = Field(1, ge=1)
    """Smallest number given."""
    largest: int = Field(9, le=10_000)
    """Largest number given."""
    largest_target: int = Field(100, ge=1)
    """Largest target."""
    use_all: bool = False
    """Whether an answer must use each number exactly once. False: at most once."""
    ordered: bool = False
    """Whether the numbers stand in an equation in which only the signs are missing: the answer keeps their order, and
    changes nothing by brackets."""

    @model_validator(mode="after")
    def check_together(self) -> CountdownParams:
        """Raises ValueError for numbers that do not fit each other."""
        if unknown := set(self.operators) - set(OPERATORS):
            raise ValueError(f"operators is {self.operators!r}: {sorted(unknown)} are none of + - * /")
        if self.largest - self.smallest + 1 < self.numbers:
            raise ValueError(
                f"smallest is {self.smallest} and largest {self.largest}: expected room for {self.numbers} different "
                "numbers"
            )
        if self.fewest is not None and self.fewest > self.numbers:
            raise ValueError(f"fewest is {self.fewest}, and numbers {self.numbers}: expected no more than that")
        if self.fewest is not None and self.operations is not None:
            raise ValueError(f"fewest is {self.fewest} and operations {self.operations}: expected one of them")
        if self.operations is not None and self.operations >= self.numbers:
            raise ValueError(f"operations is {self.operations}: {self.numbers} numbers allow {self.numbers - 1}")
        for name in ("use_all", "ordered"):
            if getattr(self, name) and self.operations not in (None, self.numbers - 1):
                raise ValueError(f"operations is {self.operations}, but {name} = true takes {self.numbers - 1}")
        return self


class Countdown:
    """Draws numbers and a target that can be reached from them, and judges expressions."""

    name = "countdown"

    def __init__(self, params: CountdownParams) -> None:
        self._params = params

    def draw(self, random: Random) -> Instance:
        """Different numbers, in rising order unless theirs is given: equal questions have equal texts."""
        params = self._params
        for _ in range(MAX_TRIES):
            count = random.randint(params.fewest or params.numbers, params.numbers)
            numbers = random.sample(range(params.smallest, params.largest + 1), count)
            operations = params.operations or count - 1
            if params.ordered:
                solution = draw_signs(numbers, params.operators, random)
            else:
                solution = draw_expression(numbers[: operations + 1], params.operators, random)
                numbers.sort()
            target = evaluate(ast.parse(solution, mode="eval").body)
            if target is None or target.denominator != 1 or target in numbers:
                continue
            if 1 <= target <= params.largest_target:
                reference = {"numbers": numbers, "target": int(target), "solution": solution}
                difficulty = "1 operation" if operations == 1 else f"{operations} operations"
                question = self._ask(numbers, operations, int(target))
                return Instance(question, reference, difficulty, answer=f"{solution} = {target}")
        raise TaskError(f"task.params of countdown leave no target to reach: {params.model_dump()}")

    def _ask(self, numbers: list[int], operations: int, target: int) -> str:
        params = self._params
        if params.ordered:
            which = "sign is" if len(numbers) == 2 else "signs are"
            return f"Which {which} missing? {' ? '.join(map(str, numbers))} = {target}. Write the whole equation."
        given = f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
        use = f"the numbers {given}, each {'exactly once' if params.use_all else 'at most once'}"
        if operations + 1 < len(numbers):
            use = f"{NUMERALS[operations + 1]} of the numbers {given}"
        return f"Write an expression that equals {target}. Use {use}."

    def judge(self, reference: Any, completion: str) -> float:
        """1 if the last expression of the completion takes the numbers as asked and equals the target exactly."""
        expression = last_expression(completion)
        if expression is None:
            return 0.0
        return float(self._fits(expression, reference["numbers"]) and evaluate(expression) == reference["target"])

    def _fits(self, expression: ast.expr, given: list[int]) -> bool:
        """Whether the expression takes the given numbers as it may."""
        used = numbers_in(expression)
        if self._params.ordered:
            # Brackets must not stand in for signs: without them the expression has to be the same.
            plain = parse_expression(ast.unparse(expression).replace("(", "").replace(")", ""))
            return used == given and plain is not None and ast.dump(plain) == ast.dump(expression)
        return Counter(used) == Counter(given) if self._params.use_all else Counter(used) <= Counter(given)


def build(config: TaskConfig, split: str) -> GeneratedTask:
    """The task of `split`. Raises TaskError for parameters that cannot be."""
    return GeneratedTask(config, Countdown(read_params(config, CountdownParams)), split)


def draw_expression(numbers: list[int], operators: str, random: Random) -> str:
    """An expression of all `numbers`, two or more, in some order, with brackets around each part."""
    parts = [str(number) for number in numbers]
    while len(parts) > 1:
        left = parts.pop(random.randrange(len(parts)))
        right = parts.pop(random.randrange(len(parts)))
        parts.append(f"({left} {random.choice(operators)} {right})")
    return parts[0][1:-1]


def draw_signs(numbers: list[int], operators: str, random: Random) -> str:
    """An expression of all `numbers` in their order, without brackets."""
    return str(numbers[0]) + "".join(f" {random.choice(operators)} {number}" for number in numbers[1:])


def last_expression(text: str) -> ast.expr | None:
    """The last run of digits, operators and brackets in `text` that is an expression with an operator.

    Numbers alone are none, so that the 7 of "3 + 4 = 7" is not taken for the answer. None without one, and when the
    last run that has an operator is no expression.
    """
    text = text.replace("**", " ").translate(SIGNS)  # Two stars are bold print.
    for match in reversed(list(RUN.finditer(text))):
        run = match[0].rstrip(" \t+-*/(")
        if any(operator in run for operator in OPERATORS):
            line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            is_cut = BEFORE.search(line) or CONTINUES.match(text, match.start() + len(run))
            return None if is_cut else parse_expression(run)
    return None


def parse_expression(text: str) -> ast.expr | None:
    """The syntax tree, if it is made of whole numbers, + - * / and brackets alone."""
    try:
        tree = ast.parse(text, mode="eval").body if len(text) <= MAX_CHARACTERS else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if tree is not None and is_arithmetic(tree) else None


def is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return type(node.op) in OPERATORS.values() and is_arithmetic(node.left) and is_arithmetic(node.right)
    return isinstance(node, ast.Constant) and type(node.value) is int


def numbers_in(node: ast.AST) -> list[int]:
    """The numbers of an expression from left to right, with repetitions."""
    if isinstance(node, ast.BinOp):
        return [*numbers_in(node.left), *numbers_in(node.right)]
    return [node.value] if isinstance(node, ast.Constant) else []


def evaluate(node: ast.expr) -> Fraction | None:
    """The exact value. None where something is divided by zero."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    assert isinstance(node, ast.BinOp)
    left, right = evaluate(node.left), evaluate(node.right)
    if left is None or right is None or (isinstance(node.op, ast.Div) and right == 0):
        return None
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    return left * right if isinstance(node.op, ast.Mult) else left / right
