"""`async` without any staleness is `sync`: the same numbers, bit for bit, on the deterministic engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

TIMES = ("wall_s", "wait_s", "train_s", "publish_s", "generated_tokens_per_s", "trained_tokens_per_s")
STEPS = 5


def learned(start: Callable[..., Any], name: str, *schedule: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    run = start(name, f"schedule.steps={STEPS}", "actors.engine=scripted", "model.dtype=float32", *schedule)
    assert run.finish() == 0, run.output()
    records = [{key: value for key, value in record.items() if key not in TIMES} for record in run.records()]
    weights = load_file(run.folder / "checkpoints" / f"step-{STEPS:06d}" / "model" / "model.safetensors")
    return records, weights


def test_async_without_staleness_equals_sync_bit_for_bit(start: Callable[..., Any]) -> None:
    records, weights = learned(start, "sync", "schedule.mode=sync")
    strict = ("schedule.mode=async", "schedule.broadcast_every=1", "schedule.max_staleness=0")
    other_records, other_weights = learned(start, "async", *strict)
    assert records == other_records
    assert weights.keys() == other_weights.keys()
    assert all((weights[name] == other_weights[name]).all() for name in weights)
    assert all(record["lag_max"] == 0 for record in records)


def test_two_actors_learn_what_one_does(start: Callable[..., Any]) -> None:
    # Which actor generates a prompt must not matter, nor in which order groups come in.
    records, weights = learned(start, "one", "schedule.mode=sync")
    other_records, other_weights = learned(start, "two", "schedule.mode=sync", "actors.count=2")
    assert [record["loss"] for record in records] == [record["loss"] for record in other_records]
    assert all((weights[name] == other_weights[name]).all() for name in weights)
