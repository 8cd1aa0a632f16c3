"""The last box of a completion."""

from __future__ import annotations

import time

import pytest

from tasks.answers import judge
from tasks.boxed import last_boxed


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\frac{\\sqrt{3}}{2^{10}}} units", "\\frac{\\sqrt{3}}{2^{10}}"),
        ("\\boxed{\\left\\{1, 2\\right\\}}", "\\left\\{1, 2\\right\\}"),
        ("first \\boxed{1}, then \\boxed{2}", "2"),
        ("\\boxed { 7 }", "7"),
        ("\\fbox{3}", "3"),
        ("$\\boxed 5$", "5"),
        ("\\boxed{\\boxed{6}}", "6"),
        ("\\boxed{}", ""),
    ],
)
def test_the_last_box_is_read_with_balanced_braces(text: str, held: str) -> None:
    assert last_boxed(text) == held


@pytest.mark.parametrize(
    "text", ["", "42", "\\boxed", "\\boxed{4", "\\boxed{1} and \\boxed{\\frac{1}{2}", "\\boxedness{4}"]
)
def test_there_is_no_box_without_one_that_is_closed(text: str) -> None:
    assert last_boxed(text) is None


@pytest.mark.parametrize("text", ["\\boxed{" * 50_000, "{" * 200_000, "\\boxed " * 50_000])
def test_reading_takes_linear_time(text: str) -> None:
    begin = time.thread_time()
    assert last_boxed(text) is None
    assert time.thread_time() - begin < 5


@pytest.mark.parametrize(
    ("reference", "completion", "reward"),
    [
        ("\\frac{1}{2}", "Half of it: $\\boxed{0.5}$", 1.0),
        ("\\frac{1}{2}", "Half of it: $\\boxed{\\dfrac{1}{2}}$", 1.0),
        ("\\frac{1}{2}", "Half of it: $\\boxed{\\frac{1}{3}}$", 0.0),
        ("\\frac{1}{2}", "Half of it: $\\boxed{-\\frac{1}{2}}$", 0.0),
        ("\\frac{1}{2}", "Half of it: 1/2", 0.0),
        ("3", "\\boxed{3}, or rather \\boxed{4}", 0.0),
        ("12", "\\boxed{1 2}", 0.0),
        ("x^2+2x+1", "\\boxed{(x+1)^2}", 1.0),
        ("(3,4)", "\\boxed{(3, 4)}", 1.0),
        ("(3,4)", "\\boxed{(4, 3)}", 0.0),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}", 1.0),
        ("\\text{Evelyn}", "\\boxed{\\text{Evelyn}}", 1.0),
        ("\\text{Evelyn}", "\\boxed{\\text{Carla}}", 0.0),
        ("\\$5", "\\boxed{5}", 1.0),
        ("\\$5", "\\boxed{\\$5}", 1.0),
        ("5", "\\boxed{\\$5}", 1.0),
        ("\\$5", "\\boxed{6}", 0.0),
        ("\\$18.90", "\\boxed{18.90}", 1.0),
        ("\\$18.90", "\\boxed{\\$18.9}", 1.0),
        ("\\$1,250", "\\boxed{1250}", 1.0),
        ("\\$1,250", "\\boxed{\\$1250}", 1.0),
        ("\\$1,250", "\\boxed{\\$1260}", 0.0),
        ("\\$\\frac{5}{2}", "\\boxed{2.5}", 1.0),
        ("$5$", "\\boxed{\\frac{10}{2}}", 1.0),
        ("5", "\\boxed{}", 0.0),
        ("5", "", 0.0),
    ],
)
def test_boxed_answers_are_compared_as_mathematics(reference: str, completion: str, reward: float) -> None:
    assert judge("boxed", None, reference, completion) == reward
