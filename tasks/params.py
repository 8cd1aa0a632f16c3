"""`task.params` of a built-in task, checked."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from tasks.config import Section, TaskConfig
from tasks.errors import TaskError, describe_options

Params = TypeVar("Params", bound=Section)


def read_params(config: TaskConfig, model: type[Params]) -> Params:
    """The parameters as `model`. Raises TaskError with each parameter that is unknown or cannot be."""
    try:
        return model(**config.params)
    except ValidationError as error:
        faults = "; ".join(describe_fault(fault, model) for fault in error.errors())
        raise TaskError(f"task.params of {config.name}: {faults}") from None


def describe_fault(fault: object, model: type[Section]) -> str:
    assert isinstance(fault, dict)
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{place} is unknown; {describe_options(place, model.model_fields)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place} is {fault['input']!r}: {message[0].lower() + message[1:]}" if place else message
