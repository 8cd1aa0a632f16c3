"""The line of metrics.jsonl that an optimizer step leaves; DESIGN.md fixes the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from learner.batch import TrainBatch
from learner.update import Update
from protocol.messages import Batch
from protocol.version import PolicyVersion

# Keys of the contract that the diagnostics of a batch hold under the same names.
_MEASURED = (
    "lag_mean",
    "lag_max",
    "ratio_mean",
    "clipped_fraction",
    "ess_fraction",
    "kl_behaviour",
    "logprob_diff_mean",
)


@dataclass
class Timings:
    """Seconds of one step, by what the loop spent them on."""

    wait_s: float = 0.0
    """Waiting for the batch."""
    train_s: float = 0.0
    """Forward, backward, optimizer."""
    publish_s: float = 0.0
    """Copying weights, and waiting for the publication before."""


def step_record(
    batch: Batch,
    data: TrainBatch,
    update: Update,
    version: PolicyVersion,
    timings: Timings,
    *,
    lr: float,
    interval_s: float,
    wall_s: float,
    actors: int,
    evaluation: dict[str, Any] | None,
) -> dict[str, Any]:
    """The record of the step that led to `version`; `interval_s` is the time since the step before.

    `evaluation` came in since then, and tells itself of which step it is.
    """
    measured = dict(update.diagnostics)
    record = {name: measured.pop(name) for name in _MEASURED}
    interval_s = max(interval_s, 1e-9)
    diagnostics = {**measured, **update.extra, "micro_batches": update.num_micro_batches}
    if update.entropy is not None:
        diagnostics["entropy"] = update.entropy
    return record | {
        "step": version.step,
        "incarnation": version.incarnation,
        "wall_s": wall_s,
        "reward_mean": batch.reward_mean,
        "groups": data.num_groups,
        "groups_filtered": batch.groups_filtered,
        "tokens_trained": data.num_tokens,
        "completion_tokens_mean": data.num_tokens / data.num_completions,
        "loss": update.loss,
        "grad_norm": update.grad_norm,
        "lr": lr,
        "wait_s": timings.wait_s,
        "train_s": timings.train_s,
        "publish_s": timings.publish_s,
        "generated_tokens_per_s": batch.generated_tokens / interval_s,
        "trained_tokens_per_s": data.num_tokens / interval_s,
        "actors": actors,
        "eval": evaluation,
        "diagnostics": diagnostics,
    }
