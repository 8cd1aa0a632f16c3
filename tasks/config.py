"""`[task]`: which task, from which data, judged how."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BUILT_IN = ("reasoning_gym", "jsonl", "huggingface")
# Which fields mean something to which kind of task. A field that is set but not read is a mistake of the user.
# A recipe for the hub must also run on a file by --set task.path alone, so records share all of their fields.
RECORD_FIELDS = {"path", "question_field", "answer_field", "answer_pattern", "split", "subset"}
FIELDS_OF = {
    "reasoning_gym": {"dataset", "params", "seed", "size"},
    "jsonl": RECORD_FIELDS,
    "huggingface": RECORD_FIELDS,
    "user": {"params"},
}
COMMON_FIELDS = {"name", "limit", "eval"}
# A task of the user's own writes its prompts and judges its answers itself.
JUDGED_FIELDS = {"prompt_template", "answer", "completion_pattern"}


class Section(BaseModel):
    """Base of the sections: unknown keys are errors, values do not change, docstrings describe fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EvalConfig(Section):
    """`[task.eval]`: prompts that are asked to measure progress and are never trained on."""

    size: int = Field(100, ge=1)
    """Evaluation prompts, at most."""
    seed: int = Field(1_000_000_000, ge=0, lt=2**32)
    """reasoning_gym: seed of the first evaluation prompt. Records without a split of their own: seed of the draw that
    holds prompts back. It does not follow task.seed, so that runs with different seeds are measured alike."""
    path: str | None = None
    """jsonl, huggingface: where the evaluation records are. None takes task.path."""
    split: str | None = None
    """huggingface: split of the evaluation records, such as "test". None takes task.split."""
    k: tuple[int, ...] = Field((1, 8), min_length=1)
    """Values of k for pass@k."""
    samples: int | None = Field(None, ge=1)
    """Completions drawn for each prompt, at least the largest k. None draws as many as that."""
    temperature: float | None = Field(None, gt=0)
    """Temperature of these draws. None takes actors.temperature."""
    greedy: bool = True
    """Whether each prompt is also answered once at temperature 0."""
    every: int | None = Field(None, ge=1)
    """Optimizer steps between two evaluations while the run goes on, by an engine of their own. None has none."""
    threads: int | None = Field(None, ge=1)
    """CPU cores set aside for these evaluations on one machine, and the CPUs that they ask of a Ray cluster. None
    shares the actors' cores, at a lower priority than theirs, and asks for one."""
    gpus: float | None = Field(None, ge=0)
    """GPUs that they ask for; None as of `actors.gpus`."""
    end_wait_s: float = Field(300.0, ge=0)
    """Seconds for which the end of a run waits for the evaluation of its last weights."""

    @property
    def ks(self) -> tuple[int, ...]:
        """Values of k, rising."""
        return tuple(sorted(set(self.k)))

    @property
    def num_samples(self) -> int:
        """Completions drawn for each prompt."""
        return self.ks[-1] if self.samples is None else self.samples

    @model_validator(mode="after")
    def _check_samples(self) -> EvalConfig:
        if self.ks[0] < 1:
            raise ValueError(f"k is {list(self.k)}; expected whole numbers from 1, such as [1, 8]")
        if self.num_samples < self.ks[-1]:
            raise ValueError(
                f"samples is {self.samples} with k = {list(self.k)}: pass@{self.ks[-1]} needs at least {self.ks[-1]} "
                "completions of each prompt; raise samples, or lower k"
            )
        return self


class TaskConfig(Section):
    """`[task]`: what is learned."""

    name: str
    """"reasoning_gym", "jsonl", "huggingface", or "module:object" for a task of your own."""
    dataset: str | None = None
    """reasoning_gym: name of the data set, such as "chain_sum"."""
    params: dict[str, Any] = Field(default_factory=dict)
    """reasoning_gym: parameters of the data set. module:object: keyword arguments of the object."""
    seed: int = Field(0, ge=0, lt=2**32)
    """reasoning_gym: seed of the first prompt; prompt i has seed + i."""
    size: int = Field(10_000, ge=1)
    """reasoning_gym: prompts of one epoch."""
    path: str | None = None
    """A .jsonl, .json (an array) or .jsonl.gz file; with huggingface also a data set's name, or a folder of one."""
    split: str = "train"
    """huggingface: split of the data set."""
    subset: str | None = None
    """huggingface: configuration of the data set, such as "main". None if it has only one."""
    question_field: str = "question"
    """Records: the field that holds the question."""
    answer_field: str = "answer"
    """Records: the field that holds the right answer."""
    answer_pattern: str | None = None
    """Records: regular expression whose first group is the answer within answer_field, such as "#### (.+)".
    None takes the whole field."""
    prompt_template: str = "{question}"
    """The user's message; {question} is replaced, other braces stay as they are."""
    answer: Literal["last_number", "math_verify", "exact", "dataset"] = "last_number"
    """How a completion is judged: "last_number" compares the last number in it, "math_verify" compares as mathematics,
    "exact" compares the text without surrounding blanks, "dataset" asks the reasoning_gym data set."""
    completion_pattern: str | None = None
    """Regular expression whose first group is the answer within the completion; its last match counts, and a completion
    without one gets 0. None judges the whole completion."""
    limit: int | None = Field(None, ge=1)
    """Only the first prompts, so many of them. None takes all."""
    eval: EvalConfig | None = None
    """Evaluation prompts. None has none."""

    @property
    def kind(self) -> str:
        """The built-in name, or "user" for module:object."""
        return self.name if self.name in BUILT_IN else "user"

    @model_validator(mode="after")
    def check_fields(self) -> TaskConfig:
        """Raises ValueError with the field, what it is, what it should be and the remedy."""
        self._check_name()
        self._check_read()
        self._check_patterns()
        if self.answer == "dataset" and self.kind != "reasoning_gym":
            raise ValueError(
                f'answer is "dataset" with name "{self.name}"; only reasoning_gym data sets judge answers: '
                'use "last_number", "math_verify" or "exact"'
            )
        if "{question}" not in self.prompt_template:
            raise ValueError(f"prompt_template is {self.prompt_template!r}; it must hold {{question}}")
        return self

    def _check_name(self) -> None:
        if self.kind == "user" and not re.fullmatch(r"[\w.]+:[\w.]+", self.name):
            raise ValueError(f'name is "{self.name}"; expected {", ".join(BUILT_IN)} or module:object')
        if self.kind == "reasoning_gym" and self.dataset is None:
            raise ValueError('dataset is missing; name a reasoning_gym data set, such as dataset = "chain_sum"')
        if self.kind in ("jsonl", "huggingface") and self.path is None:
            example = "data/train.jsonl" if self.kind == "jsonl" else "openai/gsm8k"
            raise ValueError(f'path is missing; {self.kind} needs one, such as path = "{example}"')

    def _check_read(self) -> None:
        """A field that this kind of task would silently ignore is refused."""
        read = COMMON_FIELDS | FIELDS_OF[self.kind] | (JUDGED_FIELDS if self.kind != "user" else set())
        for name, field in type(self).model_fields.items():
            if name not in read and getattr(self, name) != field.get_default(call_default_factory=True):
                raise ValueError(
                    f'{name} is {getattr(self, name)!r}, which name "{self.name}" does not read: remove it'
                )
        if self.eval is None:
            return
        if self.eval.split and self.kind == "jsonl" and not self.eval.path:
            raise ValueError(
                f'eval.split is "{self.eval.split}", but a file has no splits: set eval.path to another file'
            )
        for name in ("path", "split"):
            if getattr(self.eval, name) and self.kind not in ("jsonl", "huggingface"):
                raise ValueError(f'eval.{name} is "{getattr(self.eval, name)}", which name "{self.name}" does not read')

    def _check_patterns(self) -> None:
        for name in ("answer_pattern", "completion_pattern"):
            pattern = getattr(self, name)
            if pattern is None:
                continue
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{name} is {pattern!r}, no regular expression: {error}") from None
            if groups < 1:
                raise ValueError(f"{name} is {pattern!r}; it needs a group around the answer, such as '#### (.+)'")
