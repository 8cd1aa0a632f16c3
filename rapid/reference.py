"""Prints docs/configuration.md from the models: `python -m rapid.reference > docs/configuration.md`."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rapid.config import RapidConfig

_HEAD = """# Configuration reference

Generated from the models by `make docs`; a test keeps it current. A recipe is a TOML file with these sections; any
field can be overridden on the command line with `--set section.field=value`. Unknown keys are errors.
"""

_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}


def render_reference() -> str:
    """The reference as markdown: a table for each section, sections within sections after them."""
    parts = [_HEAD]
    for name, field in RapidConfig.model_fields.items():
        parts += _section(name, field)
    return "\n".join(parts)


def _section(name: str, field: FieldInfo) -> list[str]:
    model = _model_of(field)
    assert model is not None, f"{name} is not a section"
    lines = [f"## `[{name}]`\n\n{field.description}\n\n| field | type | default | meaning |\n|---|---|---|---|"]
    inner: list[str] = []
    for key, value in model.model_fields.items():
        if _model_of(value) is None:
            lines.append(_row(key, value))
        else:
            inner += _section(f"{name}.{key}", value)
    return [*lines, "", *inner]


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model that a field holds, itself or None."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _row(key: str, field: FieldInfo) -> str:
    cells = (f"`{key}`", _kind(field), _default(field), field.description or "")
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _kind(field: FieldInfo) -> str:
    """The type, with choices and bounds in words."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f'"{choice.value}"' for choice in annotation)
    kind = annotation.__name__ if isinstance(annotation, type) else re.sub(r"\b(\w+\.)+", "", str(annotation))
    bounds = [
        f"{sign} {getattr(bound, name):g}"
        for bound in field.metadata
        for name, sign in _SIGNS.items()
        if getattr(bound, name, None) is not None
    ]
    return ", ".join([kind.replace("NoneType", "None"), *bounds])


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return f"`{field.default_factory()!r}`"  # type: ignore[call-arg]
    if field.default is PydanticUndefined:
        return "required"
    return "None" if field.default is None else f"`{getattr(field.default, 'value', field.default)!r}`"


if __name__ == "__main__":
    print(render_reference(), end="")
