"""Methods by their names in the literature, as switches of `[algorithm]`: what a recipe has to say for each.

A preset that is not itself a value of `algorithm.loss` is refused there with its switches, see AlgorithmConfig.
"""

from __future__ import annotations

from typing import Any

_GROUP_MEAN = {"baseline": "plain"}
_GROUP_DEVIATION = {"baseline": "plain", "advantage_scale": "std"}

PRESETS: dict[str, dict[str, Any]] = {
    "rapid": {"loss": "rapid"},
    "reinforce": {"loss": "policy_gradient", **_GROUP_MEAN},
    "rloo": {"loss": "policy_gradient", "baseline": "leave_one_out"},
    "grpo": {"loss": "grpo", **_GROUP_DEVIATION, "normaliser": "length"},
    "dr_grpo": {"loss": "grpo", **_GROUP_MEAN, "normaliser": "constant", "normaliser_tokens": 1024},
    "dapo": {"loss": "grpo", **_GROUP_DEVIATION, "normaliser": "tokens", "clip_high": 0.28},
    "gspo": {"loss": "gspo", **_GROUP_DEVIATION, "normaliser": "length"},
    "cispo": {"loss": "cispo", **_GROUP_DEVIATION, "normaliser": "tokens"},
    "tis": {"loss": "tis", **_GROUP_DEVIATION, "normaliser": "tokens"},
    "icepop": {"loss": "icepop", **_GROUP_DEVIATION, "normaliser": "tokens"},
    "areal": {"loss": "decoupled_ppo", "proximal": "recomputed", **_GROUP_DEVIATION, "normaliser": "tokens"},
    "a3po": {
        "loss": "decoupled_ppo",
        "proximal": "interpolated",
        "proximal_lag": 1,
        **_GROUP_DEVIATION,
        "normaliser": "tokens",
    },
    "m2po": {"loss": "m2po", **_GROUP_DEVIATION, "normaliser": "tokens"},
    "raft": {"loss": "sft"},
}
"""Of "dr_grpo" `normaliser_tokens` is to be the longest completion, `actors.max_tokens`. "areal" wants
`schedule.broadcast_every` of at least 2, since its proximal policy is that of the last broadcast."""


def describe_preset(name: str) -> str:
    """The switches of a preset as lines of a recipe: `loss = "grpo", normaliser = "tokens"`."""
    return ", ".join(
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in PRESETS[name].items()
    )
