"""Word problems: the answer follows from the text."""

from __future__ import annotations

import re

import pytest

from tasks import EvalConfig, TaskConfig, TaskError, build_task, difficulty_of

GAIN, LOSS = re.compile(r"(?:buys|finds|gets|wins) (\d+)"), re.compile(r"(?:gives away|loses|sells|uses) (\d+)")


def solve(question: str) -> tuple[int, int]:
    """Answer and number of steps, read from the text by other means than it was written by."""
    opening, *rest = question.split(". ")
    numbers = [int(number) for number in re.findall(r"\d+", opening)]
    total, steps = (numbers[0] * numbers[1], 1) if len(numbers) == 2 else (numbers[0], 0)
    for sentence in rest[:-1]:
        if gain := GAIN.search(sentence):
            total += int(gain[1])
        elif loss := LOSS.search(sentence):
            total -= int(loss[1])
        else:
            assert "doubles" in sentence
            total *= 2
        steps += 1
    return total, steps


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("multiply", [True, False])
def test_the_reference_is_what_the_text_says(steps: int, multiply: bool) -> None:
    config = TaskConfig(name="word_problems", size=300, params={"steps": steps, "multiply": multiply})
    task = build_task(config)
    for index in range(len(task)):
        prompt = task.prompt(index)
        answer, taken = solve(prompt.messages[0]["content"])
        assert (str(answer), taken) == (prompt.reference, steps)
        assert answer >= 1
        assert task.reward(prompt, f"That makes {answer}.") == 1.0
        assert task.reward(prompt, f"{answer}, no: {answer + 1}") == 0.0
    assert difficulty_of(task, 7) == ("1 step" if steps == 1 else f"{steps} steps")


def test_evaluation_questions_are_held_out() -> None:
    config = TaskConfig(name="word_problems", size=2000, params={"steps": 1, "largest": 5}, eval=EvalConfig(size=60))
    train, held = build_task(config), build_task(config, "eval")
    asked = {train.prompt(index).messages[0]["content"] for index in range(len(train))}
    assert asked.isdisjoint(held.prompt(index).messages[0]["content"] for index in range(len(held)))


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(TaskError, match="step is unknown; nearest: steps"):
        build_task(TaskConfig(name="word_problems", params={"step": 2}))
