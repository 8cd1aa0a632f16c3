"""How many actors would balance the learner, from rates that a run has measured.

    R = tokens generated a step / seconds the learner works a step     what the learner would use if it never waited
    r = tokens/s of an actor / share of time its engine was busy       what one actor gives if nothing holds it back
    n = the least number with n r >= (1 - slack) R                     leaves the learner waiting <= slack of its time

The tokens generated a step include those of groups that are filtered or stale, so that what the learner cannot use is
allowed for. On one machine actors and learner share the cores: another actor then slows the others, which no rate
measured before can tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from telemetry.catalogue import ACTOR_BUSY, ACTOR_TOKEN_RATE
from telemetry.record import Record

SLACK = 0.1
"""Share of its time that the learner may wait."""
STEPS = 10
"""Steps over which the learner's need is taken."""
_LEAST_BUSY = 0.05
"""An engine that worked less of its time than this says nothing of its speed."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What the measured rates come to; `actors` is None where they say nothing yet, and `text` tells why."""

    actors: int | None
    text: str
    needed_tokens_per_s: float | None = None
    actor_tokens_per_s: float | None = None


def advise(records: Sequence[Record], clients: Sequence[Mapping[str, Any]], mode: str) -> Advice:
    """Advice on the number of actors.

    Args:
        records: of the run, in order.
        clients: of the hub's Status, as plain data.
        mode: `schedule.mode`.
    """
    if mode != "async":
        return Advice(None, f"in {mode} mode actors and learner take turns: more actors only shorten their turn")
    needed, rate = needed_tokens_per_s(records), actor_tokens_per_s(clients)
    if needed is None:
        return Advice(None, f"no advice before {STEPS // 2} steps are done", actor_tokens_per_s=rate)
    if rate is None:
        return Advice(None, "no advice: no actor was busy lately", needed_tokens_per_s=needed)
    actors = max(1, math.ceil((1 - SLACK) * needed / rate))
    text = f"{actors} would balance the learner: it could use {needed:,.0f} tokens/s, an actor gives {rate:,.0f}"
    return Advice(actors, text, needed, rate)


def needed_tokens_per_s(records: Sequence[Record]) -> float | None:
    """R, over the last steps; None before there are enough of them."""
    # The first step of a life includes the start of the engines.
    recent = [
        (before, record) for before, record in pairwise(records) if before["incarnation"] == record["incarnation"]
    ][-STEPS:]
    if len(recent) < STEPS // 2:
        return None
    tokens = sum(record["generated_tokens_per_s"] * (record["wall_s"] - before["wall_s"]) for before, record in recent)
    works_s = sum(record["train_s"] + record["publish_s"] for _, record in recent)
    return tokens / works_s if tokens > 0 and works_s > 0 else None


def actor_tokens_per_s(clients: Sequence[Mapping[str, Any]]) -> float | None:
    """r, the mean over actors that were busy; None without any."""
    found = []
    for client in clients:
        rate, busy = (client["metrics"].get(metric.name) for metric in (ACTOR_TOKEN_RATE, ACTOR_BUSY))
        if client["role"] == "actor" and rate and busy and busy >= _LEAST_BUSY:
            found.append(rate / busy)
    return sum(found) / len(found) if found else None
