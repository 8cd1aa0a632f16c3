"""Reading recipes: TOML, then `--set` overrides, then checks; every fault is found before anything starts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from protocol.spelling import nearest_name
from rapid.config import RapidConfig
from rapid.errors import ConfigError, UsageError


def load_recipe(path: Path, overrides: list[str]) -> RapidConfig:
    """The configuration of a recipe file, with `section.key=value` overrides applied.

    Raises:
        UsageError: the file is not there or not TOML, or an override is malformed.
        ConfigError: the configuration cannot work; lists every problem found.
    """
    values = _read_toml(path)
    apply_overrides(values, overrides)
    return check_config(values, str(path))


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> None:
    """Write `section.key=value` overrides into plain values. Raises UsageError for a malformed one."""
    for override in overrides:
        _apply(values, override)


def check_config(values: dict[str, Any], source: str) -> RapidConfig:
    """Validate plain values. Raises ConfigError with every problem found."""
    try:
        config = RapidConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(source, [_describe(fault) for fault in error.errors()]) from None
    if problems := config.problems():
        raise ConfigError(source, problems)
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"recipe {path}: no such file; the shipped ones are {', '.join(shipped_recipes())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {path} is not TOML: {error}") from None


def shipped_recipes() -> list[str]:
    """Recipes of this repository, as paths relative to its root."""
    root = Path(__file__).resolve().parent.parent
    return sorted(str(path.relative_to(root)) for path in (root / "recipes").rglob("*.toml"))


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or len(names) < 2 or not all(names):
        raise UsageError(f"--set {override!r}: expected section.key=value, for example --set learner.lr=1e-5")
    for name in names[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise UsageError(f"--set {override!r}: {name} is a value, not a section")
    values[names[-1]] = _parse_value(text.strip())


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # an unquoted string, as shells make them


def _describe(fault: Any) -> str:
    location = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{location}: unknown key{_nearest(fault['loc'])}"
    if fault["type"] == "missing":
        return f"{location}: missing; it has no default"
    message = fault["msg"].removeprefix("Value error, ") + _nearest_choice(fault)
    # Of a rule over a whole section the message names the fields; the section itself would only be in the way.
    value = "" if isinstance(fault["input"], dict) else f" = {fault['input']!r:.80}"
    return f"{location}{value}: {message[:1].lower()}{message[1:]}"


def _nearest_choice(fault: Any) -> str:
    """The choice that a misspelt one may have meant."""
    if fault["type"] not in ("literal_error", "enum") or not isinstance(fault["input"], str):
        return ""
    choices = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
    near = nearest_name(fault["input"], choices)
    return f"; did you mean {near!r}?" if near else ""


def _without_none(annotation: Any) -> Any:
    """X of "X | None"."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and type(None) in get_args(annotation) else annotation


def _nearest(location: tuple[Any, ...]) -> str:
    model: type[BaseModel] = RapidConfig
    for name in location[:-1]:
        field = model.model_fields.get(str(name))
        annotation = _without_none(field.annotation) if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    near = nearest_name(str(location[-1]), model.model_fields)
    if near:
        return f"; did you mean {'.'.join(map(str, (*location[:-1], near)))}?"
    return f"; known here: {', '.join(model.model_fields)}"
