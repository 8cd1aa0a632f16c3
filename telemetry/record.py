"""The record of one optimizer step: the keys of metrics.jsonl, which are a contract, and their checks."""

from __future__ import annotations

import json
import logging
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from telemetry.errors import RecordError

log = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a record. `kind` is int, float or dict; `nullable` says that null may stand there."""

    name: str
    kind: type
    help: str
    nullable: bool = False


KEYS: tuple[Key, ...] = (
    Key("step", int, "The optimizer step that this record closes, from 1."),
    Key("incarnation", int, "Which life of the learner made it; grows by one with each resume."),
    Key("wall_s", float, "Seconds since the first actor of this incarnation was ready."),
    Key("reward_mean", float, "Mean reward of all groups that came in since the step before, filtered ones included."),
    Key("groups", int, "Groups in the batch."),
    Key("groups_filtered", int, "Groups put aside since the step before because all their rewards were equal."),
    Key("tokens_trained", int, "Completion tokens in the batch."),
    Key("completion_tokens_mean", float, "Mean length of the batch's completions, in tokens."),
    Key("lag_mean", float, "Mean lag of the batch's tokens, in optimizer steps."),
    Key("lag_max", int, "Largest lag of any token of the batch, in optimizer steps."),
    Key("ratio_mean", float, "Mean importance weight before clipping; 1 on policy."),
    Key(
        "clipped_fraction",
        float,
        "Share of the ratios, tokens or completions, that the loss clipped, cut off or masked.",
    ),
    Key("ess_fraction", float, "Effective sample size of the importance weights, as a share of their number."),
    Key("kl_behaviour", float, "Estimated KL divergence from the generating policy, in nats per token."),
    Key(
        "logprob_diff_mean",
        float,
        "Mean |generator - trainer| logprob at equal version, in nats; null where no completion is wholly of lag 0.",
        nullable=True,
    ),
    Key("loss", float, "Value of the surrogate loss."),
    Key("grad_norm", float, "Norm of the gradient before clipping."),
    Key("lr", float, "Learning rate of this step."),
    Key("wait_s", float, "Seconds that the learner waited for this batch."),
    Key("train_s", float, "Seconds of forward, backward and optimizer."),
    Key("publish_s", float, "Seconds that publishing weights kept the learner from training."),
    Key("generated_tokens_per_s", float, "Tokens per second of all actors together since the step before."),
    Key("trained_tokens_per_s", float, "Completion tokens trained per second since the step before."),
    Key("actors", int, "Actors connected."),
    Key(
        "eval",
        dict,
        "An evaluation that came in since the step before, as in eval.jsonl; its own `step` says of which weights.",
        nullable=True,
    ),
)
DIAGNOSTICS = "diagnostics"
"""The one key beyond the contract: a map of whatever else is worth keeping, by name."""

_NAMES = frozenset(key.name for key in KEYS)


def check_record(record: Mapping[str, Any]) -> Record:
    """The record with plain Python numbers, in the contract's order.

    JSON knows neither NaN nor infinity: such a number becomes null and a warning, for a diverging run must be
    able to tell that it diverges.

    Raises:
        RecordError: a key is missing, unknown, or of another type.
    """
    missing, unknown = _NAMES - set(record), set(record) - _NAMES - {DIAGNOSTICS}
    if missing or unknown:
        raise RecordError(
            f"metrics record of step {record.get('step')}: missing {sorted(missing)}, unknown {sorted(unknown)}; "
            f'expected exactly the keys of telemetry.record.KEYS, anything else goes under "{DIAGNOSTICS}"'
        )
    checked = {key.name: _check_value(key, record[key.name]) for key in KEYS}
    if record.get(DIAGNOSTICS) is not None:
        checked[DIAGNOSTICS] = _check_value(Key(DIAGNOSTICS, dict, ""), record[DIAGNOSTICS])
    return checked


def _check_value(key: Key, value: Any) -> Any:
    if value is None and key.nullable:
        return None
    if key.kind is dict and isinstance(value, Mapping):
        return _plain(value, key.name)
    # bool is a number to Python, and numpy's numbers are registered as such: the first is a mistake, the second not.
    if key.kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if key.kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return _finite(float(value), key.name)
    expected = key.kind.__name__ + (" or null" if key.nullable else "")
    raise RecordError(f"metrics record: {key.name} = {value!r:.80} of type {type(value).__name__}, expected {expected}")


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, name) for inner in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return _finite(float(value), name)
    raise RecordError(f"metrics record: {name} holds a {type(value).__name__}, expected what JSON knows")


def _finite(value: float, name: str) -> float | None:
    if math.isfinite(value):
        return value
    log.warning("metrics record: %s is %s, written as null", name, value)
    return None


def encode_record(record: Record) -> bytes:
    """One line of metrics.jsonl."""
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def current_line(history: Iterable[Record]) -> list[Record]:
    """The records that the run's present weights descend from, by step.

    A learner that resumes at step s repeats what an earlier incarnation did after s. Those records stay in the
    file, but they are superseded: a record supersedes all of lower incarnations whose step is not below its own.
    """
    kept: list[Record] = []
    for record in history:
        while kept and kept[-1]["step"] >= record["step"]:
            kept.pop()
        kept.append(record)
    return kept


def elapsed_s(records: list[Record]) -> list[float]:
    """Working time at each record in seconds: `wall_s`, summed where an incarnation began its clock anew."""
    elapsed: list[float] = []
    offset = last = 0.0
    incarnation = None
    for record in records:
        wall = record["wall_s"] or 0.0
        if incarnation is not None and record["incarnation"] != incarnation:
            offset += last
        incarnation, last = record["incarnation"], wall
        elapsed.append(offset + wall)
    return elapsed
