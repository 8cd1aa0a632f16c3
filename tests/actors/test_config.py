"""The sampling contract, and what `actors.config` costs to import."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from actors.config import ActorsConfig


@pytest.mark.parametrize(("field", "value"), [("top_p", 0.9), ("top_k", 50)])
def test_a_truncated_distribution_is_refused_with_field_bound_value_and_remedy(field, value):
    with pytest.raises(ValidationError) as caught:
        ActorsConfig(**{field: value})
    text = str(caught.value)
    assert f"actors.{field} must be" in text
    assert f"got {value}" in text
    assert f"Remove {field}" in text


def test_full_support_is_accepted():
    assert ActorsConfig(top_p=1.0, top_k=0).max_sequences == 128  # 16 groups of 8


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        ActorsConfig(groop_size=8)


def test_every_field_says_what_it_is():
    assert all(field.description for field in ActorsConfig.model_fields.values())


def test_importing_the_configuration_imports_nothing_heavy():
    code = "import sys, actors.settings; print([m for m in ('torch', 'vllm', 'ray', 'deepspeed') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
