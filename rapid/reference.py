"""Prints docs/configuration.md from the models: `python -m rapid.reference > docs/configuration.md`."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rapid.config import RapidConfig

_HEAD = """# Configuration reference

Generated from the models by `make docs`; a test keeps it current. A recipe is a TOML file with these sections; any
field can be overridden on the command line with `--set section.field=value`. Unknown keys are errors.
"""


def render_reference() -> str:
    """The reference as markdown: a table for each section."""
    parts = [_HEAD]
    for name, field in RapidConfig.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        parts.append(f"## `[{name}]`\n\n{field.description}\n\n| field | type | default | meaning |\n|---|---|---|---|")
        parts.extend(_row(key, value) for key, value in section.model_fields.items())
        parts.append("")
    return "\n".join(parts)


def _row(key: str, field: FieldInfo) -> str:
    annotation = field.annotation
    kind = getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation)
    bounds = ", ".join(str(bound) for bound in field.metadata)
    cells = (f"`{key}`", f"{kind} {bounds}".strip(), _default(field), field.description or "")
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return f"`{field.default_factory()!r}`"  # type: ignore[call-arg]
    if field.default is PydanticUndefined:
        return "required"
    return "None" if field.default is None else f"`{getattr(field.default, 'value', field.default)!r}`"


if __name__ == "__main__":
    print(render_reference(), end="")
