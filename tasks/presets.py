"""The built-in names of public data sets: each a set of defaults over the fields of `[task]`, and nothing more.

A preset is filled in before the configuration is checked, so that the resolved configuration shows every value and a
recipe may override each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Preset:
    """Defaults of one name. What the user writes always comes first."""

    kind: str
    """The kind of task whose fields these are."""
    always: Mapping[str, Any]
    """How records are asked and judged, wherever they come from."""
    hub: Mapping[str, Any]
    """The public data set; for a task.path of the user's own none of this holds."""
    hub_eval: Mapping[str, Any]
    """Its evaluation records, for [task.eval] without a path."""
    file: Mapping[str, Any] = field(default_factory=dict)
    """One file of the user's own that holds training and evaluation records."""
    file_eval: Mapping[str, Any] = field(default_factory=dict)
    """Its evaluation records."""


MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

PRESETS: dict[str, Preset] = {
    # Cobbe et al. 2021, arXiv 2110.14168. A solution is one step a line, then "#### answer".
    "gsm8k": Preset(
        kind="huggingface",
        always={
            "answer_pattern": "#### (.+)",
            "answer": "last_number",
            "prompt_template": "{question}\nThink step by step. End with the answer as a number.",
            "difficulty_field": "answer",
            "difficulty_count": "\\n",
        },
        hub={"path": "openai/gsm8k", "subset": "main", "split": "train"},
        hub_eval={"split": "test"},
    ),
    # Hendrycks et al. 2021, arXiv 2103.03874; evaluated on the 500 problems of Lightman et al. 2023, arXiv 2305.20050,
    # which are of the test split.
    "math": Preset(
        kind="huggingface",
        always={
            "question_field": "problem",
            "answer_field": "solution",
            "answer": "boxed",
            "prompt_template": "{question}\nThink step by step, and put the final answer within \\boxed{}.",
            "difficulty_field": "level",
        },
        hub={"path": "EleutherAI/hendrycks_math", "subset": list(MATH_SUBJECTS), "split": "train"},
        hub_eval={"path": "HuggingFaceH4/MATH-500", "split": "test"},
    ),
    # Zheng et al. 2021, arXiv 2109.00110, in Lean 4. Trained on "valid", evaluated on "test".
    "minif2f": Preset(
        kind="minif2f",
        always={
            "question_field": "lean",
            "prompt_template": "Prove this theorem in Lean 4 with Mathlib. Answer with the whole theorem and its "
            "proof in one ```lean4 block. Leave the statement as it is, and state nothing else.\n"
            "```lean4\n{question}\n```",
        },
        hub={"path": "cat-searcher/minif2f-lean4", "question_field": "formal_statement", "split": "validation"},
        hub_eval={"split": "test"},
        file={"split_field": "split", "split": "valid"},
        file_eval={"split": "test"},
    ),
}


def fill_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `[task]` with those that its name's preset has and the user does not."""
    preset = PRESETS.get(str(values.get("name")))
    evaluation = values.get("eval")
    if isinstance(evaluation, BaseModel):
        evaluation = evaluation.model_dump(exclude_unset=True)
    if preset is None or not isinstance(evaluation, Mapping | None):
        return dict(values)
    has_own_eval = evaluation is not None and evaluation.get("path") not in (None, preset.hub_eval.get("path"))
    defaults, eval_defaults = dict(preset.always), {}
    if values.get("path") in (None, preset.hub["path"]):
        defaults |= preset.hub
        eval_defaults = {} if has_own_eval else dict(preset.hub_eval)
    elif not has_own_eval:
        defaults |= preset.file
        eval_defaults = dict(preset.file_eval)
    filled = {**defaults, **{name: value for name, value in values.items() if name != "path" or value is not None}}
    if evaluation is not None:
        filled["eval"] = {**eval_defaults, **evaluation}
    return filled
