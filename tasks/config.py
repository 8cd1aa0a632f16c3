"""`[task]`: which task, from which data, judged how."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.errors import describe_options
from tasks.presets import PRESETS, fill_preset

# Seconds for one proof; here, because actors.reward_timeout_s is held against it before anything of Lean is imported.
LEAN_TIMEOUT_S = 60.0
CODE_TASKS = ("mbpp", "mbpp_plus", "humaneval", "humaneval_plus")
# Which fields mean something to which kind of task. A field that is set but not read is a mistake of the user.
# A recipe for the hub must also run on a file by --set task.path alone, so records share all of their fields.
ROW_FIELDS = {"path", "split", "split_field", "subset", "question_field", "prompt_template"}
RECORD_FIELDS = ROW_FIELDS | {"answer_field", "answer_pattern", "difficulty_field", "difficulty_count"}
JUDGED_FIELDS = {"answer", "completion_pattern"}
CODE_FIELDS = {"path", "subset", "prompt_template", "sandbox", "time_limit_s", "memory_limit_mib"}
GENERATED_FIELDS = {"params", "seed", "size", "prompt_template"}
FIELDS_OF = {
    "reasoning_gym": GENERATED_FIELDS | JUDGED_FIELDS | {"dataset"},
    "word_problems": GENERATED_FIELDS | {"completion_pattern", "examples"},
    "countdown": GENERATED_FIELDS | {"completion_pattern", "examples"},
    "derivation": GENERATED_FIELDS | {"completion_pattern", "examples"},
    "jsonl": RECORD_FIELDS | JUDGED_FIELDS,
    "huggingface": RECORD_FIELDS | JUDGED_FIELDS,
    "minif2f": ROW_FIELDS | {"params"},
    # A task of the user's own writes its prompts and judges its answers itself.
    "user": {"params", "seed"},
    **dict.fromkeys(CODE_TASKS, CODE_FIELDS),
}
COMMON_FIELDS = {"name", "limit", "eval"}
BUILT_IN = tuple(dict.fromkeys([*(kind for kind in FIELDS_OF if kind != "user"), *PRESETS]))


class Section(BaseModel):
    """Base of the sections: unknown keys are errors, values do not change, docstrings describe fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EvalConfig(Section):
    """`[task.eval]`: prompts that are asked to measure progress and are never trained on."""

    size: int = Field(100, ge=1)
    """Evaluation prompts, at most."""
    seed: int = Field(1_000_000_000, ge=0, lt=2**32)
    """Generated, and tasks of your own that take a `seed`: seed of the evaluation prompts. Records without a split of
    their own: seed of the draw that holds prompts back. It does not follow task.seed, so that runs with different
    seeds are measured alike."""
    path: str | None = None
    """Records: where those of the evaluation are. None takes task.path."""
    split: str | None = None
    """Records: split of those of the evaluation, such as "test". None takes task.split."""
    subset: str | None = None
    """huggingface: configuration of the data set at eval.path. None takes task.subset, or none with an eval.path."""
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
    """"gsm8k", "math", "mbpp", "mbpp_plus", "humaneval", "humaneval_plus", "minif2f", "countdown", "derivation",
    "word_problems", "reasoning_gym", "jsonl", "huggingface", or "module:object" for a task of your own."""
    dataset: str | None = None
    """reasoning_gym: name of the data set, such as "chain_sum"."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Generated: parameters of what is generated. minif2f: where Lean is. module:object: keyword arguments of the
    object."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Generated, and tasks of your own that take a `seed`: seed of the prompts."""
    size: int = Field(10_000, ge=1)
    """Generated: prompts of one epoch."""
    examples: int = Field(0, ge=0, le=16)
    """countdown, derivation, word_problems: solved examples, always the same, that come before the question as turns
    of the chat."""
    path: str | None = None
    """A .jsonl, .json (an array) or .jsonl.gz file; with huggingface also a data set's name, or a folder of one."""
    split: str = "train"
    """Records: split of the data set, or value of split_field."""
    split_field: str | None = None
    """Records: the field that names a record's split, in a file that holds several. None takes all records."""
    subset: str | list[str] | None = None
    """huggingface: configuration of the data set, such as "main", or several, one after the other. None if it has
    only one."""
    question_field: str = "question"
    """Records: the field that holds the question."""
    answer_field: str = "answer"
    """Records: the field that holds the right answer."""
    answer_pattern: str | None = None
    """Records: regular expression whose first group is the answer within answer_field, such as "#### (.+)".
    None takes the whole field."""
    difficulty_field: str | None = None
    """Records: the field by which `rapid eval` breaks its result down, such as "level". None does not."""
    difficulty_count: str | None = None
    """Records: regular expression whose matches in difficulty_field are counted to give the difficulty, such as lines
    of a solution. None takes the field as it is."""
    prompt_template: str = "{question}"
    """The user's message; {question} is replaced, other braces stay as they are."""
    answer: Literal["last_number", "math_verify", "boxed", "exact", "dataset"] = "last_number"
    """How a completion is judged: "last_number" compares the last number in it, "math_verify" compares as mathematics,
    "boxed" so compares what its last \\boxed{} holds, "exact" compares the text without surrounding blanks, "dataset"
    asks the reasoning_gym data set."""
    completion_pattern: str | None = None
    """Regular expression whose first group is the answer within the completion; its last match counts, and a completion
    without one gets 0. None judges the whole completion."""
    sandbox: Literal["auto", "bubblewrap", "process"] = "auto"
    """Code tasks: what keeps generated programs in. "auto" takes bubblewrap where it works, else "process", which has
    one wall in place of two (docs/sandbox.md)."""
    time_limit_s: float = Field(3.0, gt=0, le=600)
    """Code tasks: seconds of processor time, rounded up to whole ones, that a program may take for all of a problem's
    tests. Of wall time three times as many, at least 5, which must stay below actors.reward_timeout_s."""
    memory_limit_mib: int = Field(512, ge=256)
    """Code tasks: MiB of address space of a program, of which Python and numpy take about 200."""
    limit: int | None = Field(None, ge=1)
    """Only the first prompts, so many of them. None takes all."""
    eval: EvalConfig | None = None
    """Evaluation prompts. None has none."""

    @property
    def kind(self) -> str:
        """What the task is made by: a key of FIELDS_OF. Presets are made by what their fields belong to."""
        if self.name in PRESETS:
            return PRESETS[self.name].kind
        return self.name if self.name in FIELDS_OF else "user"

    @property
    def lot(self) -> dict[str, Any] | None:
        """What decides which records are held back for the evaluation, by option. None where no lot is drawn."""
        draws = self.kind in ("jsonl", "huggingface", "minif2f", "humaneval", "humaneval_plus")
        if self.eval is None or not draws or self.eval.path is not None:
            return None
        if self.eval.split is not None and not self.is_code:
            return None
        own = ("size", "seed", "path", "split", "subset")
        return {f"task.eval.{name}": getattr(self.eval, name) for name in own} | {
            f"task.{name}": getattr(self, name) for name in ("path", "split", "split_field", "subset")
        }

    @model_validator(mode="before")
    @classmethod
    def fill(cls, values: Any) -> Any:
        """The defaults of a name that stands for a public data set."""
        return fill_preset(values) if isinstance(values, dict) else values

    @property
    def is_code(self) -> bool:
        """Whether completions are programs, which are run."""
        return self.name in CODE_TASKS

    @model_validator(mode="after")
    def check_fields(self) -> TaskConfig:
        """Raises ValueError with the field, what it is, what it should be and the remedy."""
        self._check_name()
        self._check_read()
        self._check_patterns()
        if self.answer == "dataset" and self.kind != "reasoning_gym":
            raise ValueError(
                f'answer is "dataset" with name "{self.name}"; only reasoning_gym data sets judge answers: '
                'use "last_number", "math_verify", "boxed" or "exact"'
            )
        if "{question}" not in self.prompt_template:
            raise ValueError(f"prompt_template is {self.prompt_template!r}; it must hold {{question}}")
        return self

    def _check_name(self) -> None:
        if self.kind == "user" and not re.fullmatch(r"[\w.]+:[\w.]+", self.name):
            raise ValueError(
                f'name is "{self.name}"; expected module:object or a built-in name; '
                f"{describe_options(self.name, BUILT_IN)}"
            )
        if self.kind == "reasoning_gym" and self.dataset is None:
            raise ValueError('dataset is missing; name a reasoning_gym data set, such as dataset = "chain_sum"')
        if self.kind in ("jsonl", "huggingface", "minif2f") and self.path is None:
            example = "data/train.jsonl" if self.kind == "jsonl" else "openai/gsm8k"
            raise ValueError(f'path is missing; {self.kind} needs one, such as path = "{example}"')

    def _check_read(self) -> None:
        """A field that this kind of task would silently ignore is refused."""
        read = COMMON_FIELDS | FIELDS_OF[self.kind]
        for name, field in type(self).model_fields.items():
            if name not in read and getattr(self, name) != field.get_default(call_default_factory=True):
                raise ValueError(
                    f'{name} is {getattr(self, name)!r}, which name "{self.name}" does not read: remove it'
                )
        if self.eval is None:
            return
        if self.eval.split and self.kind == "jsonl" and not self.eval.path and not self.split_field:
            raise ValueError(
                f'eval.split is "{self.eval.split}", but a file has no splits: set eval.path to another file, or '
                "split_field to the field that names a record's split"
            )
        for name in ("path", "split", "subset"):
            if getattr(self.eval, name) and "path" not in FIELDS_OF[self.kind]:
                raise ValueError(f'eval.{name} is "{getattr(self.eval, name)}", which name "{self.name}" does not read')

    def _check_patterns(self) -> None:
        if self.difficulty_count is not None and self.difficulty_field is None:
            raise ValueError(
                f"difficulty_count is {self.difficulty_count!r}, but there is no difficulty_field to count in"
            )
        for name in ("answer_pattern", "completion_pattern", "difficulty_count"):
            pattern = getattr(self, name)
            if pattern is None:
                continue
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{name} is {pattern!r}, no regular expression: {error}") from None
            if groups < 1 and name != "difficulty_count":
                raise ValueError(f"{name} is {pattern!r}; it needs a group around the answer, such as '#### (.+)'")
