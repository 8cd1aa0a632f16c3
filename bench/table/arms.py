"""The methods that are compared, as named sets of overrides of a recipe.

An arm says everything about schedule and estimator and nothing about task, model, batch or budget, which are the same
for all. What a recipe says of `[schedule]` and `[algorithm]` does not count: what an arm leaves out is the default of
that field (bench.table.plan).

    grpo, pg, dapo, sft, ...    on-policy: mode "sync"
    grpo-large-H                one rollout batch for H mini-batches, PPO's clip: mode "alternate"
    rapid-H                     RAPID as published: mode "alternate", broadcast every H steps
    rapid-async                 RAPID while actors never stop
    rapid-4-...                 ablations of rapid-4, one switch each
    stale-LOSS-L                LOSS trained at lag L: mode "async" with the lag held
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocol.spelling import nearest_name

Overrides = Mapping[str, Any]

ABLATED_H = 4
"""H of the arm that the ablations change one switch of."""
LARGE_BATCHES = (2, 4, 8, 16)
CLIPS = ("1.2", "1.5", "3", "5", "none")
LAGS = (0, 1, 2, 4, 8, 16, 32)
ASYNC_STALENESS = 2


@dataclass(frozen=True)
class Arm:
    """One method."""

    name: str
    what: str
    """One sentence for the table's legend."""
    overrides: Overrides = field(default_factory=dict)
    """Fields of the recipe, "section.key", that make the method."""


def _sync() -> dict[str, Any]:
    return {"schedule.mode": "sync", "schedule.broadcast_every": 1, "schedule.max_staleness": 0}


def _alternate(every: int) -> dict[str, Any]:
    return {"schedule.mode": "alternate", "schedule.broadcast_every": every, "schedule.max_staleness": every - 1}


def _async(staleness: int) -> dict[str, Any]:
    return {"schedule.mode": "async", "schedule.broadcast_every": 1, "schedule.max_staleness": staleness}


def _held(lag: int) -> dict[str, Any]:
    """Every batch at this lag: the learner waits until the buffer is as full as the bound admits."""
    return {**_async(lag), "schedule.hold_staleness": True}


_GRPO = {
    "algorithm.loss": "grpo",
    "algorithm.baseline": "plain",
    "algorithm.advantage_scale": "std",
    "algorithm.normaliser": "length",
}
_PG = {"algorithm.loss": "policy_gradient", "algorithm.baseline": "plain"}
_RAPID = {"algorithm.loss": "rapid"}
_DAPO = {
    "algorithm.loss": "grpo",
    "algorithm.baseline": "plain",
    "algorithm.advantage_scale": "std",
    "algorithm.normaliser": "tokens",
    "algorithm.clip_high": 0.28,
}
_SFT = {"algorithm.loss": "sft"}
# Groups without signal teach GRPO nothing, but groups that are right throughout are samples to SFT.
_ALL_GROUPS = {"buffer.filter_zero_signal": False}

# In the staleness series all estimators get the advantage of the policy gradient, so that nothing but the treatment of
# the ratio differs; RAPID keeps its weighted baseline, which belongs to it.
_STALE: dict[str, dict[str, Any]] = {
    "rapid": _RAPID,
    "ppo": {"algorithm.loss": "ppo", "algorithm.baseline": "plain"},
    "tis": {"algorithm.loss": "tis", "algorithm.baseline": "plain"},
    # At a broadcast every step the weights of the last broadcast are those that train: a proximal policy between
    # generator and trainer is found by interpolation.
    "decoupled_ppo": {
        "algorithm.loss": "decoupled_ppo",
        "algorithm.baseline": "plain",
        "algorithm.proximal": "interpolated",
        "algorithm.proximal_lag": 1,
    },
    "m2po": {"algorithm.loss": "m2po", "algorithm.baseline": "plain"},
}
STALE_LOSSES = tuple(_STALE)


def _main_arms() -> list[Arm]:
    return [
        Arm("grpo", "GRPO on-policy: B groups, one update, new weights", {**_sync(), **_GRPO}),
        Arm("grpo-all", "the same on all groups, those without signal included", {**_sync(), **_GRPO, **_ALL_GROUPS}),
        Arm("pg", "group-relative policy gradient on-policy: RAPID's core", {**_sync(), **_PG}),
        Arm("dapo", "GRPO on-policy with DAPO's higher clip, token mean and dynamic sampling", {**_sync(), **_DAPO}),
        Arm("sft", "likelihood of the completions that were right", {**_sync(), **_SFT, **_ALL_GROUPS}),
        *(
            Arm(
                f"grpo-large-{every}",
                f"GRPO with one rollout batch for {every} mini-batches, PPO's clip",
                {**_alternate(every), **_GRPO},
            )
            for every in LARGE_BATCHES
        ),
        *(
            Arm(f"rapid-{every}", f"RAPID, alternate, H = {every}", {**_alternate(every), **_RAPID})
            for every in LARGE_BATCHES
        ),
        Arm("rapid-async", f"RAPID, async, lag at most {ASYNC_STALENESS}", {**_async(ASYNC_STALENESS), **_RAPID}),
    ]


def _ablations() -> list[Arm]:
    base, name = {**_alternate(ABLATED_H), **_RAPID}, f"rapid-{ABLATED_H}"
    return [
        Arm(f"{name}-no-weight", "without importance weights", {**_alternate(ABLATED_H), **_PG}),
        Arm(f"{name}-plain", "plain baseline", {**base, "algorithm.baseline": "plain"}),
        *(Arm(f"{name}-clip-{clip}", f"weights clipped at {clip}", {**base, **_clip(clip)}) for clip in CLIPS),
        Arm(f"{name}-token", "a weight each token", {**base, "algorithm.weight_level": "token"}),
        Arm(
            f"{name}-length",
            "length-normalised weights",
            {**base, "algorithm.weight_level": "length_normalised"},
        ),
        Arm(
            "rapid-async-token",
            "RAPID, async, a weight each token",
            {**_async(ASYNC_STALENESS), **_RAPID, "algorithm.weight_level": "token"},
        ),
    ]


def _clip(clip: str) -> dict[str, Any]:
    return {"algorithm.weight_clip": "none" if clip == "none" else float(clip)}


def _staleness_series() -> list[Arm]:
    return [
        Arm(stale_name(loss, lag), f"{loss} at lag {lag}", {**_held(lag), **overrides})
        for loss, overrides in _STALE.items()
        for lag in LAGS
    ]


def stale_name(loss: str, lag: int) -> str:
    """The arm of the staleness series with this loss and lag."""
    return f"stale-{loss}-{lag}"


ARMS: dict[str, Arm] = {arm.name: arm for arm in [*_main_arms(), *_ablations(), *_staleness_series()]}

SETS: dict[str, tuple[str, ...]] = {
    "main": ("grpo", "grpo-large-4", "pg", "rapid-4", "rapid-async"),
    "methods": tuple(arm.name for arm in _main_arms()),
    "ablations": tuple(arm.name for arm in _ablations()),
    "staleness": tuple(arm.name for arm in _staleness_series()),
}
"""Names that stand for several arms in a plan."""


def expand(names: list[str]) -> list[str]:
    """Names of arms, sets replaced by what they stand for, each once, in order."""
    return list(dict.fromkeys(arm for name in names for arm in SETS.get(name, (name,))))


def nearest(name: str, known: list[str]) -> str:
    """What to try in place of an unknown name."""
    near = nearest_name(name, known)
    return f"did you mean {near}?" if near else f"known: {', '.join(known)}"
