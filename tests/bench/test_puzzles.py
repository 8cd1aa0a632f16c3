"""The two generated tasks for tiny models."""

from __future__ import annotations

import pytest

from bench.table.puzzles import Countdown, Sums, evaluate, is_held_out
from tasks import Prompt


def question(prompt: Prompt) -> str:
    return prompt.messages[-1]["content"]


@pytest.mark.parametrize("kind", [Sums, Countdown])
def test_training_and_evaluation_share_no_problem(kind: type[Sums] | type[Countdown]) -> None:
    train, held_out = kind(), kind(split="eval")
    asked = {question(train.prompt(index)) for index in range(300)}
    evaluated = {question(held_out.prompt(index)) for index in range(300)}
    assert len(asked) > 200
    assert asked & evaluated == set()
    assert all(is_held_out(each) for each in evaluated)


@pytest.mark.parametrize("kind", [Sums, Countdown])
def test_the_reference_solves_its_own_problem_and_a_mutated_one_does_not(kind: type[Sums] | type[Countdown]) -> None:
    task = kind(size=200)
    for index in range(len(task)):
        prompt = task.prompt(index)
        assert task.reward(prompt, prompt.reference) == 1.0
        assert task.reward(prompt, prompt.reference + "1") == 0.0
    assert task.prompt(7) == kind(size=200).prompt(7)


def test_another_right_expression_counts() -> None:
    prompt = Prompt.ask("3 5 7: 22", reference="3*5+7")
    task = Countdown()
    assert task.reward(prompt, " 7+5*3 ") == 1.0
    assert task.reward(prompt, "3*5+7+0") == 0.0
    assert task.reward(prompt, "22") == 0.0


@pytest.mark.parametrize(
    "text", ["", "3**5", "__import__('os')", "3/5", "(3", "3 5", "-3", "1.5+2", "True+2", "(" * 500]
)
def test_what_is_no_expression_has_no_value(text: str) -> None:
    assert evaluate(text, [3, 5]) is None
