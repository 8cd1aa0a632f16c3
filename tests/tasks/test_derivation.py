"""Derivation: each step follows from the one before, or the whole counts nothing."""

from __future__ import annotations

import pytest

from tasks import EvalConfig, Prompt, TaskConfig, TaskError, build_task, difficulty_of
from tasks.derivation import Derivation, DerivationParams, read, successors, write
from tasks.generated import belongs_to_evaluation


def judge(completion: str, expression: str = "3 + 8 - 5") -> float:
    return Derivation(DerivationParams()).judge(read(expression), completion)


@pytest.mark.parametrize(
    "completion",
    [
        "3 + 8 - 5 = 11 - 5 = 6",
        "3 + 8 - 5 = 3 + 3 = 6",  # another way
        "3+8-5=11-5=6.",
        "**3 + 8 − 5 = 11 − 5 = 6**",
        "3 + 8 - 5 = 11 - 5 = 6 .\t",
        "First 3 + 8 = 12. No:\n3 + 8 - 5 = 11 - 5 = 6\nSo it is 6.",
    ],
)
def test_any_derivation_in_single_steps_is_right(completion: str) -> None:
    assert judge(completion) == 1.0


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "6",
        "3 + 8 - 5 = 6",  # two steps at once
        "11 - 5 = 6",  # the beginning is missing
        "3 + 8 - 5 = 11 - 5",  # the end is missing
        "3 + 8 - 5 = 12 - 6 = 6",  # right at the end alone
        "3 + 8 - 5 = 11 - 5 = 7",
        "3 + 8 - 5 = 11 - 5 = 6 = 6",
        "8 + 3 - 5 = 11 - 5 = 6",
        "3 + 8 - 5 = 11 - 5 = 6\n6 = 6",  # the last line counts
        "The sum is 3 + 8 - 5 = 11 - 5 = 6",
        "3 + 8 - 5 = 11 - 5 = 6 apples",
        "3 + 8 - 5 = 11 - 5 = ٦",
        "3 + 8 - 5 = 11 -5- = 6",
        "3 + 8 - 5 = 1**1 - 5 = 6",
        "=",
    ],
)
def test_anything_else_is_wrong(completion: str) -> None:
    assert judge(completion) == 0.0


@pytest.mark.parametrize(
    ("expression", "following"),
    [
        ("1 + 2 + 3", ["3 + 3", "1 + 5"]),
        ("9 - 2 + 3", ["7 + 3"]),  # 9 - 5 would take 3 off as well
        ("9 - 2 - 3", ["7 - 3"]),
        ("9 + 2 - 3", ["11 - 3"]),  # 2 - 3 is below 0
        ("2 + 3 * 4", ["2 + 12"]),
        ("2 * 3 + 4", ["6 + 4"]),
        ("2 * 3 * 4", ["6 * 4", "2 * 12"]),
        ("9 - 2 * 3 + 4", ["9 - 6 + 4"]),
        ("9 - 2 + 3 * 4", ["7 + 3 * 4", "9 - 2 + 12"]),
        ("999999 + 1", []),
        ("7", []),
    ],
)
def test_a_step_takes_two_neighbours_and_keeps_the_value(expression: str, following: list[str]) -> None:
    found = [write(each) for each in successors(read(expression))]
    assert found == following
    assert {eval(each) for each in found} <= {eval(expression)}


@pytest.mark.parametrize(
    "text", ["", "+", "3 +", "3 4", "3 + -4", "(3 + 4)", "3 / 4", "3.5 + 1", "x + 1", "1234567 + 1"]
)
def test_what_is_no_expression_is_empty(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize("params", [{}, {"operators": "+-*", "terms": 5}, {"terms": 2, "smallest": 50, "largest": 90}])
def test_the_answer_of_each_question_is_right_and_a_changed_one_wrong(params: dict[str, object]) -> None:
    task = build_task(TaskConfig(name="derivation", params=params, examples=1, size=200))
    for index in range(200):
        prompt = task.prompt(index)
        example, answer, question = (message["content"] for message in prompt.messages)
        assert example.startswith("Reduce ")
        assert example != question
        expression = question.removeprefix("Reduce ").split(" to ")[0]
        derivation = [read(expression)]
        while following := successors(derivation[-1]):
            derivation.append(following[0])
        right = " = ".join(map(write, derivation))
        assert task.reward(prompt, right) == 1.0
        assert task.reward(prompt, right + "1") == 0.0
        assert task.reward(prompt, answer) == 0.0
    steps = int(params.get("terms", 3)) - 1  # type: ignore[call-overload]
    assert difficulty_of(task, 0) == ("1 step" if steps == 1 else f"{steps} steps")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"operators": "+/"}, "operators is '+/'"),
        ({"smallest": 9, "largest": 3}, "smallest is 9 and largest 3"),
        ({"terms": 1}, "terms is 1"),
        ({"steps": 2}, "steps is unknown"),
        ({"operators": "-", "terms": 3, "smallest": 9}, "leave no expression"),
    ],
)
def test_parameters_that_cannot_be_are_named(params: dict[str, object], reason: str) -> None:
    with pytest.raises(TaskError, match=reason.replace("+", "\\+")):
        build_task(TaskConfig(name="derivation", params=params)).prompt(0)


@pytest.mark.timeout(60)
def test_a_long_completion_is_read_in_linear_time() -> None:
    assert judge("= " * 100_000) == 0.0
    assert judge("1 + " * 100_000 + "=") == 0.0
    assert judge("1" * 100_000 + " = 1") == 0.0


@pytest.mark.parametrize("name", ["countdown", "derivation", "word_problems"])
def test_examples_are_solved_and_the_same_everywhere_and_belong_to_training(name: str) -> None:
    config = TaskConfig(name=name, examples=3, prompt_template="Q: {question}", eval=EvalConfig(size=30))
    train, held = build_task(config), build_task(config, "eval")
    prompts = [
        train.prompt(0),
        train.prompt(1),
        held.prompt(0),
        build_task(config.model_copy(update={"seed": 7})).prompt(0),
    ]
    turns = {tuple((each["role"], each["content"]) for each in prompt.messages[:-1]) for prompt in prompts}
    assert len(turns) == 1
    roles, texts = zip(*turns.pop(), strict=True)
    assert roles == ("user", "assistant") * 3
    plain = build_task(config.model_copy(update={"eval": None}))
    instances = list(plain.examples.values())
    assert [text.removeprefix("Q: ") for text in texts[::2]] == [each.question for each in instances]
    assert not any(belongs_to_evaluation(each.question) for each in instances)
    for instance, answer in zip(instances, texts[1::2], strict=True):
        assert plain.reward(Prompt.ask(instance.question, instance.reference), answer) == 1.0


def test_examples_differ_from_each_other_and_from_all_questions() -> None:
    # Nine sums, so that draws meet each of them often.
    params = {"terms": 2, "operators": "+", "largest": 3}
    task = build_task(TaskConfig(name="derivation", params=params, examples=3, size=100))
    *turns, _ = task.prompt(0).messages
    examples = {turn["content"] for turn in turns[::2]}
    asked = {task.prompt(index).messages[-1]["content"] for index in range(100)}
    assert len(examples) == 3
    assert asked
    assert asked.isdisjoint(examples)


def test_each_length_is_as_frequent() -> None:
    task = build_task(TaskConfig(name="derivation", params={"fewest": 2, "terms": 4}, size=300))
    lengths = [(len(task.prompt(index).reference) + 1) // 2 for index in range(300)]
    assert [difficulty_of(task, lengths.index(length)) for length in (2, 3, 4)] == ["1 step", "2 steps", "3 steps"]
    assert all(70 < lengths.count(length) < 130 for length in (2, 3, 4))
    with pytest.raises(TaskError, match="fewest is 4 and terms 3"):
        build_task(TaskConfig(name="derivation", params={"fewest": 4}))
