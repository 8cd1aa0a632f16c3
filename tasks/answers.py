"""Is this completion's answer the right one? Pure functions of texts."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from decimal import Decimal

from tasks.boxed import last_boxed
from tasks.errors import TaskError
from tasks.mathematics import is_same_mathematics

# A minus belongs to the number only when it touches it and nothing stands before it that it could subtract from:
# "= -3" is -3, while "5-3" and "5 - 3" end in 3. Commas count only before groups of three digits: "1,2" ends in 2.
# A period counts only before a digit, so that a sentence may end after a number.
NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]}%$])(?:[-−]\$?|\$[-−]))?"
    r"(?:(?P<whole>\d{1,3}(?:,\d{3})+(?![\d,]\d)|\d+)(?P<fraction>\.\d+)?|(?P<bare>\.\d+))",
    re.ASCII,
)
Judge = Callable[[str, str], float]


def last_number(text: str) -> Decimal | None:
    """The last number in `text`, with its sign and without commas and currency. None if there is none."""
    last = None
    for match in NUMBER.finditer(text):
        last = match
    if last is None:
        return None
    number = Decimal((last["whole"] or "").replace(",", "") + (last["fraction"] or last["bare"] or ""))
    return -number if last["sign"] else number


def judge_last_number(reference: str, completion: str) -> float:
    """1 if the last numbers of both are equal: "so it is $1,234.00." answers "1234"."""
    expected = last_number(reference)
    return float(expected is not None and last_number(completion) == expected)


def judge_exact(reference: str, completion: str) -> float:
    """1 if both texts are equal without their surrounding blanks."""
    return float(reference.strip() == completion.strip())


def judge_boxed(reference: str, completion: str) -> float:
    """1 if the last box of the completion is the reference: "so \\boxed{\\frac12}" answers "0.5"."""
    given = last_boxed(completion)
    return 0.0 if given is None else float(is_same_mathematics(reference, f"\\boxed{{{given}}}", given))


def judge_mathematics(reference: str, completion: str) -> float:
    """1 if math-verify finds both equal: "\\frac{1}{2}" answers "0.5"."""
    return float(is_same_mathematics(reference, completion, completion.strip()))


JUDGES: dict[str, Judge] = {
    "last_number": judge_last_number,
    "math_verify": judge_mathematics,
    "boxed": judge_boxed,
    "exact": judge_exact,
}


def check_judge(answer: str) -> None:
    """Raises TaskError when the way of judging named `answer` lacks its library."""
    if JUDGES.get(answer) in (judge_boxed, judge_mathematics) and importlib.util.find_spec("math_verify") is None:
        raise TaskError(
            f'task.answer is "{answer}", which math-verify judges, but that is not installed; pip install math-verify'
        )


def extract_last(pattern: str | None, text: str) -> str | None:
    """The first group of the last match of `pattern`, or the whole text without a pattern. None without a match."""
    if pattern is None:
        return text
    last = None
    for match in re.finditer(pattern, text):
        last = match
    return None if last is None else last[1]


def judge(answer: str, completion_pattern: str | None, reference: str, completion: str) -> float:
    """1 if the answer within `completion` is `reference`, by the way of judging named `answer`, else 0."""
    given = extract_last(completion_pattern, completion)
    return 0.0 if given is None else JUDGES[answer](reference, given)


def check_reference(reference: str, answer: str, place: str) -> None:
    """Raises TaskError when the right answer is missing, or is no single number, but completions are judged by one.

    Of "1/2" or "3*5+2" only the last number would be compared, so that wrong completions were right.
    """
    if not reference.strip():
        raise TaskError(f"{place} has no answer, or none that is closed; expected one: see task.answer_field")
    if answer != "last_number":
        return
    count = sum(1 for _ in NUMBER.finditer(reference))
    if count != 1:
        raise TaskError(
            f"{place} has the answer {reference!r:.80}, which holds {count or 'no'} numbers, but task.answer is "
            '"last_number", which needs one: set task.answer_pattern, or task.answer to "exact" or "math_verify"'
        )
