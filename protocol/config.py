"""Configuration that more than one side needs: the model, the schedule and the weight path."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Base of the sections: unknown keys are errors, values do not change, docstrings describe fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelConfig(Section):
    """`[model]`: the language model that learns."""

    path: str
    """A folder in transformers' format, a Hugging Face name, or a model that Rapid makes itself and keeps in
    its cache: "smollm2-135m-instruct", "tiny", "tiny-untied"."""
    dtype: str = Field("bfloat16", pattern="^(bfloat16|float32)$")
    """Precision of generator and trainer, "bfloat16" or "float32"."""
    max_context: int = Field(1024, ge=2)
    """Longest prompt plus completion, in tokens."""
    system_prompt: str | None = None
    """System message of the chat template. None leaves it to the template."""


class ScheduleMode(StrEnum):
    """Who waits for whom."""

    SYNC = "sync"
    ALTERNATE = "alternate"
    ASYNC = "async"


class ScheduleConfig(Section):
    """`[schedule]`: how generation and training interleave."""

    mode: ScheduleMode = ScheduleMode.ASYNC
    """"sync": generate, update, broadcast. "alternate": a large inference batch, then several updates, then
    broadcast, on one set of devices. "async": both at once, with bounded staleness."""
    broadcast_every: int = Field(1, ge=1)
    """H, optimizer steps between two weight broadcasts."""
    max_staleness: int = Field(ge=0)
    """η, the largest lag, in optimizer steps, that a trained token may have. Left out, it follows from the mode:
    0 in "sync", H - 1 in "alternate", 2·H in "async". 2·H - 1 in "alternate" lets groups that are under way when a
    round is complete go on in the next, so that engines make up beforehand for what will be filtered."""
    hold_staleness: bool = False
    """Whether the learner waits until the buffer is as full as the bound admits, so that after η steps every batch has
    lag η and not at most η. For studies of staleness; wants "async" with `broadcast_every` 1."""
    steps: int = Field(100, ge=1)
    """Optimizer steps of the run."""

    @model_validator(mode="before")
    @classmethod
    def _derive_staleness(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "max_staleness" in values:
            return values
        if not isinstance(values.get("broadcast_every", 1), int):
            return values  # the field's own check names the fault
        return {**values, "max_staleness": derived_staleness(values)}


def derived_staleness(schedule: Mapping[str, Any]) -> int:
    """η of a `[schedule]` that does not say it, from its mode and H."""
    every: int = schedule.get("broadcast_every", 1)
    natural = {ScheduleMode.SYNC: 0, ScheduleMode.ALTERNATE: every - 1}
    return max(natural.get(schedule.get("mode", ScheduleMode.ASYNC), 2 * every), 0)


class WeightsConfig(Section):
    """`[weights]`: how new weights reach the actors."""

    transport: str = Field("zmq", pattern="^(zmq|nccl|ipc)$")
    """"zmq" on any machine and network; "nccl" and "ipc" are vLLM's own engines, for GPUs of one cluster or
    one card."""
    chunk_bytes: int = Field(8 * 2**20, ge=2**12, le=2**28)
    """Bytes of one chunk on the wire."""
    fetch_window: int = Field(4, ge=1)
    """Chunks asked for at once by one actor."""
    fetch_timeout_s: float = Field(60.0, gt=0)
    """Seconds to wait for one chunk before the fetch is given up and begun anew."""
