"""The section [task]: what it refuses, and what it says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from tasks import EvalConfig, TaskConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "gsm8k"}, 'name is "gsm8k"; expected reasoning_gym, jsonl, huggingface, mbpp'),
        ({"name": "reasoning_gym"}, "dataset is missing"),
        ({"name": "jsonl"}, "path is missing"),
        ({"name": "huggingface"}, "path is missing"),
        ({"name": "reasoning_gym", "dataset": "chain_sum", "path": "x.jsonl"}, "path is 'x.jsonl', which name"),
        ({"name": "jsonl", "path": "x.jsonl", "size": 5}, "size is 5, which name"),
        ({"name": "my:task", "prompt_template": "Q: {question}"}, "prompt_template is 'Q: {question}', which name"),
        ({"name": "jsonl", "path": "x.jsonl", "prompt_template": "Q:"}, "it must hold {question}"),
        ({"name": "jsonl", "path": "x.jsonl", "answer": "dataset"}, "only reasoning_gym data sets judge answers"),
        ({"name": "jsonl", "path": "x.jsonl", "answer_pattern": "#### .+"}, "it needs a group"),
        ({"name": "jsonl", "path": "x.jsonl", "completion_pattern": "("}, "no regular expression"),
        ({"name": "jsonl", "path": "x.jsonl", "eval": EvalConfig(split="test")}, "a file has no splits"),
        ({"name": "my:task", "eval": EvalConfig(path="x.jsonl")}, "eval.path is"),
        ({"name": "jsonl", "path": "x.jsonl", "answers": "exact"}, "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_refused_with_its_field(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TaskConfig(**fields)
    assert message in str(caught.value)


def test_a_hub_recipe_runs_on_a_file_by_name_and_path_alone() -> None:
    hub = TaskConfig(name="huggingface", path="openai/gsm8k", subset="main", split="train")
    TaskConfig(**{**hub.model_dump(), "name": "jsonl", "path": "train.jsonl.gz"})


def test_a_resolved_configuration_is_accepted_again() -> None:
    config = TaskConfig(name="reasoning_gym", dataset="chain_sum", eval=EvalConfig(size=8))
    assert TaskConfig(**config.model_dump()) == config


def test_every_field_is_documented() -> None:
    for section in (TaskConfig, EvalConfig):
        assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_the_package_is_imported_without_heavy_ones() -> None:
    heavy = "{'torch', 'transformers', 'vllm', 'ray', 'deepspeed', 'datasets', 'reasoning_gym', 'numpy'}"
    code = f"import sys, tasks, tasks.runner; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
