"""A tiny llama that is taught a task's answer format, so that reinforcement learning has something to begin with.

    python -m bench.table.teach bench/plans/tiny.toml

A model that is merely stopped before it can add is no start for reinforcement learning: it has nothing better to bring
out. So it learns like a language model does, from text that is right now and then: a share `right` of what it reads
are right answers, the others are right answers spoilt in one of three ways (HABITS). It comes to know the answers, and
gives them with its bad habits. Reinforcement learning has the habits to unlearn and the answers to sharpen.

Supervised learning on generated pairs of prompt and right answer, other prompts than those of evaluation, until the
model solves `target` of them when it is sampled at temperature 1. Tokenizer and architecture are those of the model
"tiny" (a token a character), with more layers and width. The result lies in the cache under a name that is the hash of
all that it depends on: the same specification gives the same folder, on one machine bit by bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from protocol.config import Section
from tasks.config import TaskConfig

log = logging.getLogger(__name__)

FORMAT = 3
"""Raised when what is made changes, so that no one gets an older one out of the cache."""
LOWEST, HIGHEST = 0.02, 0.30
"""Shares solved between which reinforcement learning has a signal and room."""
CHECKED_PROMPTS = 256
NOTE = "teach.json"


class TeachSpec(Section):
    """The model and its lessons."""

    layers: int = Field(4, ge=1)
    """Transformer blocks."""
    hidden: int = Field(128, ge=64, multiple_of=32)
    """Width; heads of 32."""
    right: float = Field(0.2, gt=0, le=1)
    """Share of right answers among those that it reads."""
    target: float = Field(0.1, ge=LOWEST, le=HIGHEST)
    """Share solved at which the lessons end."""
    lr: float = Field(1e-3, gt=0)
    """AdamW's learning rate."""
    batch: int = Field(128, ge=1)
    """Pairs of a step."""
    steps: int = Field(4000, ge=1)
    """Steps after which it is given up."""
    check_every: int = Field(25, ge=1)
    """Steps between two looks at the share solved."""
    seed: int = Field(0, ge=0)
    """Of weights, order and samples."""


# Each must be learned with the answer, so that it teaches the answer too.
HABITS: tuple[Callable[[str], str], ...] = (
    lambda answer: answer[::-1],
    lambda answer: answer + answer,
    lambda answer: f"{answer}?",
)
"""Backwards, twice, with a question mark."""


class TeachError(Exception):
    """The model cannot be taught. The text says what was reached and what to change."""


def taught_folder(spec: TeachSpec, task: TaskConfig, cache: Path) -> Path:
    """Where the model lies, or will lie."""
    what = json.dumps([FORMAT, spec.model_dump(mode="json"), _identity(task)], sort_keys=True)
    return cache / f"taught-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def _identity(task: TaskConfig) -> dict[str, Any]:
    # How many prompts an epoch or an evaluation has changes nothing of what is taught.
    return task.model_dump(mode="json", exclude={"eval", "size", "limit"})


def teach(spec: TeachSpec, task: TaskConfig, cache: Path, tell: Callable[[str], None] = log.info) -> Path:
    """The folder of the taught model, made first if it is not there. Raises TeachError."""
    folder = taught_folder(spec, task, cache)
    if (folder / NOTE).is_file():
        return folder
    from filelock import FileLock

    from rapid.models import write_beside

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{folder.name}.lock"):
        if not (folder / NOTE).is_file():
            write_beside(folder, lambda path: _teach_into(path, spec, task, tell))
    return folder


def _teach_into(folder: Path, spec: TeachSpec, task: TaskConfig, tell: Callable[[str], None]) -> None:
    from bench.table.lessons import one_thread

    with one_thread():
        note = _give_lessons(folder, spec, task, tell)
    (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def _give_lessons(folder: Path, spec: TeachSpec, task: TaskConfig, tell: Callable[[str], None]) -> dict[str, Any]:
    """Writes model and tokenizer; what came of it."""
    from bench.table.lessons import Lessons, build_model, save_model
    from rapid.tiny import write_tokenizer

    write_tokenizer(folder)
    model = build_model(spec)
    lessons = Lessons(folder, spec, task)
    share, step = 0.0, 0
    while share < spec.target:
        if step >= spec.steps:
            raise TeachError(
                f"after {step} steps the model solves {share:.3f}, expected {spec.target}: raise teach.steps, "
                "hidden or layers, lower teach.target, or take an easier task"
            )
        loss = lessons.step(model)
        step += 1
        if step % spec.check_every == 0:
            share = lessons.share_solved(model, CHECKED_PROMPTS)
            tell(f"teaching {folder.name}: step {step}, loss {loss:.3f}, solves {share:.3f}")
    if share > HIGHEST:
        raise TeachError(
            f"the model solves {share:.3f} after {step} steps and solved less than {spec.target} {spec.check_every} "
            f"steps before, expected at most {HIGHEST}: lower teach.check_every or teach.lr"
        )
    return {
        "spec": spec.model_dump(mode="json"),
        "task": _identity(task),
        "steps": step,
        "solved": share,
        "weights_sha256": save_model(model, folder),
    }


def answer_of(reference: Any) -> str:
    """The right answer that a prompt's reference holds. Raises TeachError."""
    if isinstance(reference, str):
        return reference
    if isinstance(reference, dict) and isinstance(reference.get("answer"), str):
        return str(reference["answer"])
    raise TeachError(
        f"a prompt's reference is {reference!r:.80}: expected the right answer as text, or a map with one under "
        '"answer"; such a task cannot be taught'
    )


def main() -> None:
    """Teach the models of a plan."""
    from bench.table.plan import read_plan
    from rapid.errors import UsageError
    from rapid.models import default_cache

    try:
        for name, entry in read_plan(Path(sys.argv[1])).tasks.items():
            if entry.teach is not None:
                print(f"{name}: {teach(entry.teach, read_task(entry.recipe, entry.set), default_cache(), print)}")
    except (UsageError, TeachError) as error:
        sys.exit(f"teach: {error}")


def read_task(recipe: str, overrides: dict[str, Any]) -> TaskConfig:
    """The `[task]` of a recipe with overrides. Raises UsageError."""
    from bench.table.cell import to_toml
    from rapid.recipe import load_recipe

    return load_recipe(Path(recipe), [f"{key}={to_toml(value)}" for key, value in overrides.items()]).task


if __name__ == "__main__":
    main()
