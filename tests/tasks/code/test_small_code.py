"""The generated task: its solutions are right, its tests tell wrong ones, and evaluation asks for other functions."""

from __future__ import annotations

import re

import pytest

from tasks import TaskConfig, TaskError, validate
from tasks.small.code import FAMILIES, LEVELS, SmallCode, draw_specifications


@pytest.fixture(scope="module")
def task() -> SmallCode:
    return SmallCode(levels=LEVELS, size=3 * len(FAMILIES))


def test_solutions_of_all_families_get_1_and_changed_ones_0(task: SmallCode) -> None:
    for index in range(len(task)):
        prompt = task.prompt(index)
        wanted = prompt.reference
        head = f"def {wanted.name}({wanted.arguments}):\n    return "
        assert task.reward(prompt, f"```python\n{head}{wanted.solution}\n```").value == 1.0
        assert task.reward(prompt, head + f"({wanted.solution}) * 2").value == 0.0
        assert task.reward(prompt, head + wanted.arguments).value == 0.0


def test_a_prompt_is_the_same_whenever_it_is_asked_for() -> None:
    first, second = SmallCode(seed=3), SmallCode(seed=3)
    assert [first.prompt(i) for i in range(50)] == [second.prompt(i) for i in range(50)]
    assert [first.prompt(i) for i in range(50)] != [SmallCode(seed=4).prompt(i) for i in range(50)]


@pytest.mark.parametrize("level", LEVELS)
def test_evaluation_asks_for_functions_that_are_never_trained_on(level: int) -> None:
    train = {each.solution for seed in range(3) for each in draw_specifications([level], 3000, seed, "train")}
    held = {each.solution for seed in range(3) for each in draw_specifications([level], 1000, seed, "eval")}
    assert len(held) > 10
    assert train.isdisjoint(held)


def test_difficulty_is_the_level() -> None:
    task = SmallCode(levels=[3, 1], size=200)
    assert {task.difficulty(index) for index in range(200)} == {"level 1", "level 3"}


def test_the_start_of_a_run_says_what_the_other_sandbox_does_not_contain() -> None:
    config = TaskConfig(name="tasks.small.code:SmallCode", params={"sandbox": "process"}, eval={"size": 5})
    assert any("without bubblewrap" in note for note in validate(config))


@pytest.mark.parametrize("levels", [[2, 4], [], 2, "2"])
def test_unknown_levels_are_refused(levels: object) -> None:
    with pytest.raises(TaskError, match=rf"levels is {re.escape(repr(levels))}; expected some of \[1, 2, 3\]"):
        SmallCode(levels=levels)
