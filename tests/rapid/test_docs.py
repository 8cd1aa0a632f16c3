"""Generated documents are current, and what the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rapid.config import RapidConfig
from rapid.reference import render_reference

ROOT = Path(__file__).resolve().parents[2]


def test_the_configuration_reference_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == render_reference(), "run `make docs`"


def test_every_field_is_documented() -> None:
    for name, section in RapidConfig.model_fields.items():
        assert section.description, name
        for key, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.description, f"{name}.{key}"


@pytest.mark.parametrize("document", ["README.md", "docs/architecture.md"])
def test_files_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:protocol|buffer|actors|tasks|learner|telemetry|rapid|recipes)/[\w/.]+\.\w+)`", text)
    linked = re.findall(r"\]\(((?:docs|bench)/[\w/.]+)\)", text)
    missing = [path for path in (*named, *linked) if not (ROOT / path).exists()]
    assert missing == []
