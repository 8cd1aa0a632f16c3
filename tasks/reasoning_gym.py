"""Tasks that reasoning-gym generates: any of its data sets, by name and parameters."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from tasks.answers import check_reference, extract_last, judge
from tasks.config import TaskConfig
from tasks.errors import TaskError, describe_options
from tasks.limited import call_limited, can_jail
from tasks.task import Prompt, check_index

# What a data set's own judge may use for one completion.
JUDGE_S = 5.0
JUDGE_BYTES = 2**30
# Some judges hand the answer to Python, by `eval` or by sympy's parse_expr. Whatever that does, it does in a jail; that
# it does not reach for the right answer there either, only what has no way to name or call anything is handed on:
# lists, without lower-case letters and brackets of calls, and mathematics, without words but these functions.
LISTS = re.compile(r"[0-9A-Z_ \t\n,.'\"\[\]\-]*")
FUNCTIONS = "sin cos tan asin acos atan sinh cosh tanh exp log ln sqrt Abs Integral pi"
MATHEMATICS = re.compile(
    rf"(?:[ \t\n(),+\-*/^]|(?:\d+(?:\.\d*)?|\.\d+)(?![\w.])|(?:[A-Za-z]|{FUNCTIONS.replace(' ', '|')})(?!\w))*",
    re.ASCII,
)
EVALUATED = {
    **dict.fromkeys(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"), LISTS),
    **dict.fromkeys(("countdown", "puzzle24", "polynomial_multiplication"), MATHEMATICS),
    **dict.fromkeys(("simple_integration", "intermediate_integration"), MATHEMATICS),
}


class ReasoningGymTask:
    """One prompt for each entry of a data set; entry i is generated from seed + i."""

    def __init__(self, config: TaskConfig, seed: int, size: int) -> None:
        self.name = f"reasoning_gym {config.dataset}"
        self._config, self._size = config, size
        self._dataset = create_dataset(config, seed, size)

    def __len__(self) -> int:
        return self._size

    def prompt(self, index: int) -> Prompt:
        check_index(index, len(self), self.name)
        entry = self._dataset[index]
        reference = entry if self._config.answer == "dataset" else self._read_answer(entry, index)
        return Prompt.ask(self._config.prompt_template.replace("{question}", entry["question"]), reference)

    def difficulty(self, index: int) -> str | None:
        """The dials of the data set, as "num_terms 2, num_digits 1", where an entry tells its own; else its ranges."""
        check_index(index, len(self), self.name)
        metadata = self._dataset[index].get("metadata", {})
        dials = metadata.get("difficulty")
        if not isinstance(dials, dict) or not dials:
            return None
        # What an entry calls by the name of a dial is its own value, unless it is the table of dials again.
        own = {name: value for name, value in metadata.items() if not isinstance(value, dict)}
        return ", ".join(f"{name} {own.get(name, value)}" for name, value in dials.items())

    def _read_answer(self, entry: dict[str, Any], index: int) -> str:
        place = f"entry {index} of {self.name}"
        if entry["answer"] is None:
            raise TaskError(f'{place} has more than one right answer: set task.answer to "dataset"')
        check_reference(str(entry["answer"]), self._config.answer, place)
        return str(entry["answer"])

    def reward(self, prompt: Prompt, completion: str) -> float:
        if self._config.answer != "dataset":
            return judge(self._config.answer, self._config.completion_pattern, prompt.reference, completion)
        given = extract_last(self._config.completion_pattern, completion)
        return 0.0 if given is None else self._ask_dataset(given.strip(), prompt.reference)

    def _ask_dataset(self, answer: str, entry: dict[str, Any]) -> float:
        """The score of the data set's own judge, 0 where it raises or runs wild over what it cannot read."""
        plain = EVALUATED.get(entry.get("metadata", {}).get("source_dataset", self._config.dataset))
        if plain is not None and not plain.fullmatch(answer):
            return 0.0
        score = call_limited(
            lambda: self._dataset.score_answer(answer, entry), JUDGE_S, JUDGE_BYTES, is_jailed=can_jail()
        )
        return score if 0.0 <= score <= 1.0 else 0.0


def build(config: TaskConfig, split: str) -> ReasoningGymTask:
    """The task of `split`. Raises TaskError when evaluation would ask what training has seen."""
    if config.eval is None or split == "train":
        if config.eval is not None:
            check_seeds(config.seed, config.size, config.eval.seed, config.eval.size)
        return ReasoningGymTask(config, config.seed, config.size)
    return ReasoningGymTask(config, config.eval.seed, config.eval.size)


def check_seeds(seed: int, size: int, eval_seed: int, eval_size: int) -> None:
    """Entry i has seed + i, so neighbouring seeds share nearly all of their entries."""
    if seed < eval_seed + eval_size and eval_seed < seed + size:
        raise TaskError(
            f"task.eval.seed is {eval_seed}, and its seeds {eval_seed} to {eval_seed + eval_size - 1} overlap those of "
            f"training, {seed} to {seed + size - 1}; set task.eval.seed to {seed + size} or more"
        )


def create_dataset(config: TaskConfig, seed: int, size: int) -> Any:
    """reasoning-gym's data set. Raises TaskError for an unknown name, parameter or value."""
    try:
        import reasoning_gym  # noqa: F401  importing the package fills DATASETS
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise TaskError(
            f'task.name is "reasoning_gym", which is not installed ({error}); pip install reasoning-gym'
        ) from None
    assert config.dataset is not None
    if config.dataset not in DATASETS:
        raise TaskError(
            f'task.dataset is "{config.dataset}", none of reasoning-gym\'s {len(DATASETS)} data sets; '
            + describe_options(config.dataset, DATASETS)
        )
    dataset_class, config_class = DATASETS[config.dataset]
    check_params(config, {field.name for field in dataclasses.fields(config_class)} - {"seed", "size"})
    try:
        return dataset_class(config_class(**read_params(config), seed=seed, size=size))
    except (AssertionError, TypeError, ValueError) as error:
        raise TaskError(f"task.params is {config.params}, which {config.dataset} refuses: {error}") from error


def read_params(config: TaskConfig) -> dict[str, Any]:
    """The parameters, with the members of a "composite", tables of name, weight and config, as its own type."""
    if config.dataset != "composite":
        return config.params
    from reasoning_gym.composite import DatasetSpec

    return {**config.params, "datasets": [DatasetSpec(**member) for member in config.params.get("datasets", [])]}


def check_params(config: TaskConfig, known: set[str]) -> None:
    """Raises TaskError for a parameter that the data set does not have."""
    for name in config.params:
        if name in ("seed", "size"):
            raise TaskError(f"task.params has {name}; set task.{name} instead")
        if name not in known:
            raise TaskError(
                f"task.params has {name}, which {config.dataset} does not know; {describe_options(name, known)}"
            )
