"""Countdown: what is drawn can be reached, and only what reaches it is rewarded."""

from __future__ import annotations

import ast
import re
import time
from collections import Counter
from fractions import Fraction

import pytest

from tasks import EvalConfig, TaskConfig, TaskError, build_task, difficulty_of
from tasks.countdown import Countdown, CountdownParams, evaluate, last_expression

REFERENCE = {"numbers": [2, 3, 7], "target": 13, "solution": "(2 * 3) + 7"}


def judge(completion: str, *, use_all: bool = False, numbers: list[int] | None = None, target: int = 13) -> float:
    reference = {"numbers": numbers or [2, 3, 7], "target": target}
    return Countdown(CountdownParams(use_all=use_all)).judge(reference, completion)


@pytest.mark.parametrize(
    "completion",
    [
        "2 * 3 + 7",
        "(2*3)+7",
        "7 + 3 × 2",
        "2 * 3 + 7 = 13",
        "The answer is 2 * 3 + 7.",
        "**2 * 3 + 7**\n13",
        "First 2 + 3 = 5. No: 2 * 3 + 7",
        "- 7 + 2 * 3",
        "13 = 2 * 3 + 7",
    ],
)
def test_an_expression_that_reaches_the_target_is_right(completion: str) -> None:
    assert judge(completion) == 1.0
    assert judge(completion, use_all=True) == 1.0


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "13",
        "2 * 3 + 8",
        "2 * 3 - 7",
        "7 + 7 - 1",
        "3 + 3 + 7",  # 3 is there once
        "2 * 3 + 7, or else 2 + 3",  # the last one counts
        "2 * 3 + 7 + 0",
        "(2 * 3 + 7",
        "2 * 3 + 7.5",
        "2 * 3 + 7x",
        "2 * 3 + 7^1",
        "-2 * 3 + 7",
        "2 * 3 + -7",
        "2 ** 3 + 7",
        "2 // 3 + 7",
        "2 * 3 + 7 // 1",
        "7 / (3 - 3)",
        "__import__('os').getpid() + 7",
        "2 * 3 + " + "(" * 5000 + "7" + ")" * 5000,
        "2 * 3 + ٧",
        "1" * 5000 + " + 7",
    ],
)
def test_anything_else_is_wrong(completion: str) -> None:
    assert judge(completion) == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        "3 * 8 ^ 2 = 24",
        "3 * 8 % 7",
        "3 * 8 !",
        "3 * 8!",
        "x = 3 * 8 + y",
        "3 * 8 - y",
        "3 * 8 + sqrt(4)",
        "3 * 8 - sqrt(4)",
        "3 * 8 * (two)",
        "3 * 8 / \\sqrt{4}",
        "2 ^ 3 * 8",
        "7 % 3 * 8",
        "5! / 3 * 8",
        "5! - 3 * 8",
        "y + 3 * 8",
        "y - 3 * 8",
        "two * 3 * 8",
        "-5 + 3 * 8",
        "x = - 3 * 8",
    ],
)
def test_a_part_of_a_larger_expression_is_no_answer(completion: str) -> None:
    assert judge(completion, numbers=[3, 5, 8], target=24) == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        "3 * 8",
        "3 * 8 = 24",
        "3 * 8 is 24",
        "3 * 8 (using 3 and 8)",
        "3 * 8 - which is what was asked for",
        "3 * 8 – that is it.",
        "3 * 8 != 25",
        "Answer - 3 * 8 = 24",
        "Answer: - 3 * 8 = 24",
        "*Answer:* 3 * 8 = 24",
        "*Answer* 3 * 8 = 24",
        "* 3 * 8 = 24",
        "- 3 * 8",
        "1. 3 * 8 = 24!",
        "y = 3 * 8",
        "5 is not needed.\n3 * 8",
        "2 ^ 5 is 32.\n+ 3 * 8",
        "24 = 3 * 8, without the 5",
        "$3 \\cdot 8$, so 3 * 8$.",
    ],
)
def test_what_stands_around_a_right_answer_does_not_matter(completion: str) -> None:
    assert judge(completion, numbers=[3, 5, 8], target=24) == 1.0


def test_the_number_of_operations_is_the_difficulty() -> None:
    for params, difficulty in (({"operations": 1}, "1 operation"), ({"numbers": 4}, "3 operations")):
        task = build_task(TaskConfig(name="countdown", params=params))
        assert difficulty_of(task, 0) == difficulty
        assert sum(sign in "+-*/" for sign in task.prompt(0).reference["solution"]) == int(difficulty[0])


def test_how_many_numbers_are_given_may_be_drawn() -> None:
    params = {"numbers": 4, "fewest": 2, "operators": "+-", "ordered": True}
    task = build_task(TaskConfig(name="countdown", size=300, params=params))
    references = [task.prompt(index).reference for index in range(300)]
    counts = Counter(len(reference["numbers"]) for reference in references)
    assert counts.keys() == {2, 3, 4}
    assert min(counts.values()) > 60
    for index, reference in enumerate(references):
        operations = len(reference["numbers"]) - 1
        assert difficulty_of(task, index) == ("1 operation" if operations == 1 else f"{operations} operations")


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        ({"operations": 1, "operators": "+-"}, r"that equals \d+\. Use two of the numbers"),
        ({"operators": "+"}, r"that equals \d+\. Use the numbers \d+, \d+ and \d+, each at most once\."),
        ({"numbers": 2, "ordered": True}, r"^Which sign is missing\? \d \? \d = \d+\. Write the whole equation\.$"),
        ({"use_all": True}, r"that equals .* each exactly once\."),
    ],
)
def test_the_question_says_what_may_be_used(params: dict[str, object], rule: str) -> None:
    question = build_task(TaskConfig(name="countdown", params=params)).prompt(0).messages[0]["content"]
    assert re.search(rule, question), question


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("6 * 2 - 3 = 9", 1.0),
        ("The signs are * and -: 6 × 2 − 3 = 9", 1.0),
        ("(6 * 2) - 3 = 9", 1.0),  # brackets that change nothing
        ("6 - 2 * 3 = 9", 0.0),  # it is 0
        ("-3 + 6 * 2", 0.0),
        ("2 * 6 - 3 = 9", 0.0),  # another order
        ("6 + 3", 0.0),
        ("9", 0.0),
    ],
)
def test_missing_signs_leave_the_numbers_where_they_are(completion: str, reward: float) -> None:
    countdown = Countdown(CountdownParams(ordered=True))
    assert countdown.judge({"numbers": [6, 2, 3], "target": 9}, completion) == reward


def test_brackets_do_not_stand_in_for_signs() -> None:
    countdown = Countdown(CountdownParams(ordered=True))
    assert countdown.judge({"numbers": [6, 2, 3], "target": 24}, "(6 + 2) * 3") == 0.0
    assert countdown.judge({"numbers": [6, 2, 3], "target": 12}, "6 + 2 * 3") == 1.0


def test_numbers_may_be_left_out_only_where_not_all_must_be_used() -> None:
    assert judge("3 + 7", target=10) == 1.0
    assert judge("3 + 7", target=10, use_all=True) == 0.0


def test_fractions_are_exact() -> None:
    # 8 / (3 − 8 / 3) = 24, which floating point misses.
    assert judge("8 / (3 - 8 / 3)", numbers=[3, 3, 8, 8], target=24) == 1.0
    assert evaluate(ast.parse("1 / 3 + 1 / 3 + 1 / 3", mode="eval").body) == Fraction(1)


@pytest.mark.parametrize("text", ["(" * 100_000, "1+" * 100_000, "1 " * 100_000, "-" * 100_000])
def test_a_long_completion_is_read_in_linear_time(text: str) -> None:
    begin = time.thread_time()
    assert last_expression(text) is None
    assert time.thread_time() - begin < 5


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"operations": 1, "largest": 20},
        {"numbers": 4, "operators": "+-", "use_all": True},
        {"numbers": 2, "operators": "+-*", "largest": 20, "ordered": True},
        {"numbers": 4, "ordered": True},
        {"numbers": 4, "fewest": 2},
        {"numbers": 6, "largest": 50, "largest_target": 999},
    ],
)
def test_each_instance_is_reached_by_its_own_solution(params: dict[str, object]) -> None:
    task = build_task(TaskConfig(name="countdown", size=300, params=params))
    for index in range(len(task)):
        prompt = task.prompt(index)
        reference = prompt.reference
        assert task.reward(prompt, f"{reference['solution']} = {reference['target']}") == 1.0
        assert task.reward(prompt, f"{reference['solution']} + 1") == 0.0
        assert reference["solution"] not in prompt.messages[0]["content"]
        assert reference["target"] not in reference["numbers"]
        assert max(Counter(reference["numbers"]).values()) == 1


def test_the_evaluation_asks_what_training_never_does() -> None:
    config = TaskConfig(
        name="countdown",
        size=3000,
        params={"operations": 1},
        eval=EvalConfig(size=80),
        prompt_template="{question} Go.",
    )
    train, held = build_task(config), build_task(config, "eval")
    asked = {train.prompt(index).messages[0]["content"] for index in range(len(train))}
    held_out = [held.prompt(index).messages[0]["content"] for index in range(len(held))]
    assert len(set(held_out)) == len(held_out) == 80
    assert asked.isdisjoint(held_out)
    assert held_out[0].endswith(" Go.")
    # Nor would training with another evaluation, or with none.
    alone = build_task(config.model_copy(update={"eval": None}))
    assert asked == {alone.prompt(index).messages[0]["content"] for index in range(len(alone))}
    assert [build_task(config, "eval").prompt(index).messages[0]["content"] for index in range(80)] == held_out


def test_other_seeds_draw_other_prompts_and_the_same_evaluation() -> None:
    configs = [TaskConfig(name="countdown", seed=seed, eval=EvalConfig(size=5)) for seed in (1, 2)]
    first, second = (build_task(config).prompt(0).messages for config in configs)
    assert first != second
    assert build_task(configs[0], "eval").prompt(3) == build_task(configs[1], "eval").prompt(3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"number": 4}, "number is unknown; nearest: numbers"),
        ({"numbers": 1}, "numbers is 1: input should be greater than or equal to 2"),
        ({"operators": "+^"}, r"operators is '\+\^': \['\^'\] are none of"),
        ({"operations": 3}, "operations is 3: 3 numbers allow 2"),
        ({"numbers": 4, "operations": 1, "use_all": True}, "but use_all = true takes 3"),
        ({"fewest": 4}, "fewest is 4, and numbers 3: expected no more than that"),
        ({"fewest": 2, "operations": 1}, "fewest is 2 and operations 1: expected one of them"),
        ({"operations": 1, "ordered": True}, "but ordered = true takes 2"),
        ({"smallest": 8}, "expected room for 3 different numbers"),
        ({"smallest": 50, "largest": 60, "operators": "*"}, "leave no target to reach"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        build_task(TaskConfig(name="countdown", params=params))


def test_more_evaluation_questions_than_there_are_is_refused() -> None:
    config = TaskConfig(name="countdown", params={"numbers": 2, "largest": 4}, eval=EvalConfig(size=50))
    with pytest.raises(TaskError, match=r"task.eval.size is 50, but .* has only about \d+ different"):
        build_task(config, "eval")
