"""Answers: which number is meant, and when two are the same."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from tasks.answers import check_reference, extract_last, judge, last_number
from tasks.errors import TaskError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("4 + 38 = 42.", "42"),
        ("The answer is **42**", "42"),
        ("It costs $1,234.50.", "1234.50"),
        ("12,345,678 people", "12345678"),
        ("either 1,2", "2"),
        ("1, 2", "2"),
        ("x = -3", "-3"),
        ("(-4)", "-4"),
        ("15 − 22 is −7", "-7"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\\boxed{-1,000}", "-1000"),
        ("5-3", "3"),
        ("5 - 3", "3"),
        ("2--3", "-3"),
        ("about .5", "0.5"),
        ("-.5", "-0.5"),
        ("50%", "50"),
        ("7\n8\n", "8"),
    ],
)
def test_last_number_reads_what_a_person_would(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "no number", "-", "$.", ",,,", "½", "٣"])
def test_last_number_is_none_without_a_number(text: str) -> None:
    assert last_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1" * 100_000, Decimal("1" * 100_000)),
        ("1," * 50_000, Decimal(1)),
        ("1,111" * 20_000, Decimal(1111)),
        ("-" * 100_000, None),
        ("$-" * 50_000, None),
    ],
    ids=["digits", "commas", "thousands", "signs", "dollars"],
)
def test_last_number_takes_linear_time(text: str, number: Decimal | None) -> None:
    begin = time.thread_time()
    assert last_number(text) == number
    assert time.thread_time() - begin < 5


@pytest.mark.parametrize(
    ("way", "reference", "completion", "reward"),
    [
        ("last_number", "28", "15 + 13 = 28", 1.0),
        ("last_number", "28", "28 is 15 + 13", 0.0),
        ("last_number", "1234", "$1,234.00.", 1.0),
        ("last_number", "-28", "28", 0.0),
        ("last_number", "28", "", 0.0),
        ("exact", "cba", " cba\n", 1.0),
        ("exact", "cba", "cba.", 0.0),
        ("math_verify", "0.5", "so it is \\boxed{\\frac{1}{2}}", 1.0),
        ("math_verify", "\\frac{1}{2}", "the answer is 0.5", 1.0),
        ("math_verify", "$x^2 + 2x + 1$", "$(x+1)^2$", 1.0),
        ("math_verify", "18", "the answer is 19", 0.0),
        ("math_verify", "18", "", 0.0),
    ],
)
def test_judge(way: str, reference: str, completion: str, reward: float) -> None:
    assert judge(way, None, reference, completion) == reward


def test_the_last_match_of_a_completion_pattern_counts() -> None:
    pattern = "<answer>(.*?)</answer>"
    completion = "<answer>3</answer> no, <answer>4</answer> since 2 + 2 > 1"
    assert extract_last(pattern, completion) == "4"
    assert judge("last_number", pattern, "4", completion) == 1.0


def test_a_completion_without_the_pattern_gets_nothing() -> None:
    assert judge("last_number", "<answer>(.*?)</answer>", "4", "4") == 0.0


def test_a_reference_that_is_no_single_number_is_refused() -> None:
    with pytest.raises(TaskError, match=r"record 3 has the answer 'four', which holds no numbers.*set task.answer"):
        check_reference("four", "last_number", "record 3")
    with pytest.raises(TaskError, match="which holds 2 numbers"):
        check_reference("1/2", "last_number", "record 3")
    check_reference("four", "exact", "record 3")
    check_reference("$1,000.", "last_number", "record 3")
