"""Tasks out of reasoning-gym."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from tasks import EvalConfig, TaskConfig, TaskError, build_task, reasoning_gym, validate
from tasks.task import prompt_key

QUICK_START = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}


def chain_sum(**fields: Any) -> TaskConfig:
    return TaskConfig(**{"name": "reasoning_gym", "dataset": "chain_sum", "params": QUICK_START, **fields})


def test_the_quick_start_rewards_the_right_last_number() -> None:
    task = build_task(chain_sum())
    prompt = task.prompt(0)
    assert len(task) == 10_000
    # seed 0: 15 - 43 = -28
    assert prompt.messages[0]["content"] == "State the final answer to the following arithmetic problem: 15 - 43 ="
    assert prompt.reference == "-28"
    assert [task.reward(prompt, text) for text in ("-28", "15 - 43 = -28.", "28", "-28 = 15 - 43")] == [1, 1, 0, 0]


def test_a_task_built_twice_asks_the_same() -> None:
    first, second = build_task(chain_sum(seed=5)), build_task(chain_sum(seed=5))
    assert [first.prompt(index) for index in range(20)] == [second.prompt(index) for index in range(20)]


def test_no_evaluation_question_is_trained_on_though_sums_repeat() -> None:
    config = chain_sum(size=600, eval=EvalConfig(size=50))
    train, held = build_task(config), build_task(config, "eval")
    keys = {prompt_key(held.prompt(index)) for index in range(len(held))}
    assert len(held) == 50
    assert not keys & {prompt_key(train.prompt(index)) for index in range(len(train))}
    # Without the evaluation some of them would be: one-digit sums are few.
    plain = build_task(chain_sum(size=600))
    assert keys & {prompt_key(plain.prompt(index)) for index in range(len(plain))}


def test_an_evaluation_seed_within_the_training_seeds_is_refused() -> None:
    with pytest.raises(TaskError, match=r"seeds 109 to 118 overlap those of training, 100 to 109; set .* 110 or more"):
        validate(chain_sum(seed=100, size=10, eval=EvalConfig(seed=109, size=10)))
    validate(chain_sum(seed=100, size=10, eval=EvalConfig(seed=110, size=10)))


def test_the_data_set_itself_may_judge() -> None:
    task = build_task(chain_sum(answer="dataset", completion_pattern="= (.+)"))
    prompt = task.prompt(0)
    assert [task.reward(prompt, text) for text in ("x = -28", "x = -28.0", "-28", "x = 1")] == [1, 1, 0, 0]


def test_members_of_a_composite_are_tables() -> None:
    members = [{"name": "chain_sum", "weight": 1, "config": {}}, {"name": "leg_counting", "weight": 1, "config": {}}]
    task = build_task(chain_sum(dataset="composite", params={"datasets": members}, answer="dataset"))
    sources = {task.prompt(index).reference["metadata"]["source_dataset"] for index in range(20)}
    assert sources == {"chain_sum", "leg_counting"}


@pytest.mark.parametrize("dataset", ["leg_counting", "countdown", "knights_knaves", "maze", "polynomial_equations"])
def test_other_data_sets_judge_their_own_answers_right(dataset: str) -> None:
    task = build_task(TaskConfig(name="reasoning_gym", dataset=dataset, answer="dataset"))
    prompt = task.prompt(1)
    assert task.reward(prompt, prompt.reference["answer"]) == 1.0


@pytest.mark.parametrize("dataset", sorted(reasoning_gym.EVALUATED))
def test_a_judge_that_evaluates_answers_still_takes_right_ones(dataset: str) -> None:
    task = build_task(TaskConfig(name="reasoning_gym", dataset=dataset, answer="dataset"))
    for index in range(8):
        prompt = task.prompt(index)
        assert task.reward(prompt, prompt.reference["answer"]) == 1.0


@pytest.mark.parametrize("dataset", sorted(reasoning_gym.EVALUATED))
def test_no_judge_evaluates_a_completion_that_is_a_program(dataset: str, tmp_path: Path) -> None:
    task = build_task(TaskConfig(name="reasoning_gym", dataset=dataset, answer="dataset"))
    prompt = task.prompt(0)
    for text in attacks(tmp_path / "touched"):
        assert task.reward(prompt, text) == 0.0
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("dataset", ["countdown", "n_queens", "simple_integration"])
def test_a_program_that_a_judge_does_evaluate_reaches_nothing(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reasoning_gym, "EVALUATED", {})
    task = build_task(TaskConfig(name="reasoning_gym", dataset=dataset, answer="dataset"))
    prompt = task.prompt(0)
    for text in attacks(tmp_path / "touched"):
        assert task.reward(prompt, text) <= 0.05  # which countdown gives for any answer at all
    assert not (tmp_path / "touched").exists()


def test_a_member_of_a_composite_is_known_by_its_name() -> None:
    members = [{"name": "string_insertion", "weight": 1, "config": {}}]
    task = build_task(chain_sum(dataset="composite", params={"datasets": members}, answer="dataset"))
    prompt = task.prompt(0)
    # The judge's own variable holds the right answer.
    assert [task.reward(prompt, text) for text in ("oracle_answer", prompt.reference["answer"])] == [0.0, 1.0]


def test_all_judges_that_evaluate_are_known() -> None:
    from reasoning_gym.factory import DATASETS

    evaluates = re.compile(r"\b(?:eval|exec|parse_expr|sympify|simplify)\(")
    found = {name for name, (kind, _) in DATASETS.items() if evaluates.search(inspect.getsource(kind.score_answer))}
    # It evaluates its own answer, not the model's.
    assert found - {"number_sorting"} == set(reasoning_gym.EVALUATED)


def attacks(file: Path) -> list[str]:
    touch = f"__import__('os').system('touch {file}')"
    return [
        touch,
        f"[{touch}]",
        f"open('{file}', 'w').close()",
        f'sin("{touch}")',
        f"().__class__.__base__.__subclasses__()[0].__init__.__globals__ or {touch}",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "chain_sums"}, r'task.dataset is "chain_sums", none of .* nearest: chain_sum'),
        ({"dataset": "qqq"}, "available: ab, acre.* and 100 more"),
        ({"params": {"min_term": 2}}, "task.params has min_term, which chain_sum does not know; nearest: min_terms"),
        ({"params": {"min_terms": 9}}, "which chain_sum refuses: max_terms must be >= min_terms"),
        ({"params": {"seed": 9}}, "task.params has seed; set task.seed instead"),
        ({"dataset": "countdown", "params": {}}, r"entry 0 of .* numbers, but task.answer is"),
        ({"dataset": "graph_color", "params": {}}, 'has more than one right answer: set task.answer to "dataset"'),
    ],
)
def test_mistakes_are_named_before_anything_starts(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        validate(chain_sum(**fields))
