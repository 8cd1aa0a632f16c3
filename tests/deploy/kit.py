"""What the tests of deploy/ share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = Path(__file__).parent / "schemas"


def read(path: str) -> Any:
    """The one document of a YAML file of the repository."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def read_all(path: str) -> list[Any]:
    """All documents of a YAML file of the repository."""
    return list(yaml.safe_load_all((ROOT / path).read_text(encoding="utf-8")))


def faults(document: Any, schema: str, definition: str | None = None) -> list[str]:
    """What is wrong with a document by one of the schemas, or by one definition in it: where, and what."""
    content = json.loads((SCHEMAS / schema).read_text(encoding="utf-8"))
    wanted = {"$ref": f"{schema}#/$defs/{definition}"} if definition else content
    checker = validator_for(content, default=Draft202012Validator)
    validator = checker(wanted, registry=Registry(retrieve=_retrieve))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def _retrieve(name: str) -> Resource[Any]:
    content = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    return Resource.from_contents(content, default_specification=_specification(content))


def _specification(content: Any) -> Any:
    from referencing.jsonschema import specification_with

    return specification_with(content["$schema"])
