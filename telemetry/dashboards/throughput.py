"""Throughput: how much is generated and trained, and where the time goes."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from telemetry import catalogue as c
from telemetry.dashboards.board import RUN, board
from telemetry.dashboards.panels import Panel, Query, curves
from telemetry.metric import Metric


def throughput() -> Dashboard:
    """The dashboard."""
    return board(
        "rapid-throughput",
        "throughput",
        "Tokens and groups a second, the time of each part of a step, weights on their way, and the engines.",
        {"Tokens and groups": _rates(), "A step": _step(), "Weights": _weights(), "Engines": _engines()},
    )


def _spread(histogram: Metric) -> list[Query]:
    return [Query(RUN.mean(histogram), "mean"), Query(RUN.quantile(0.95, histogram), "p95")]


def _rates() -> list[Panel]:
    return [
        curves(
            "Tokens a second",
            "Generated: tokens of the groups that reached the hub. Trained: those of the batches. The gap is what was "
            "filtered or too old.",
            [Query(RUN.rate(c.HUB_TOKENS), "generated"), Query(RUN.rate(c.LEARNER_TOKENS), "trained")],
        ),
        curves(
            "Tokens a second by actor",
            "As each actor counts them. One that is far below its siblings has a slower machine or shares it.",
            [Query(RUN.rate(c.ACTOR_TOKENS, "process"), "{{process}}")],
            stacked=True,
        ),
        curves(
            "Groups a second",
            "Groups that came in, and those that were trained.",
            [Query(RUN.rate(c.HUB_GROUPS_SUBMITTED), "generated"), Query(RUN.rate(c.LEARNER_GROUPS), "trained")],
            unit="ops",
        ),
    ]


def _step() -> list[Panel]:
    parts = [("wait", c.LEARNER_WAIT), ("train", c.LEARNER_TRAIN), ("publish", c.LEARNER_PUBLISH)]
    return [
        curves(
            "Batch wait",
            "Time from the learner's pull to the batch. The pull goes out one step ahead, so that this is not all "
            "waiting: what the learner waits is in the panel beside.",
            _spread(c.HUB_BATCH_WAIT),
            unit="s",
        ),
        curves(
            "Parts of a step",
            "Mean seconds of an optimizer step by what they went to.",
            [Query(RUN.mean(histogram), name) for name, histogram in parts],
            unit="s",
            stacked=True,
        ),
        curves(
            "Rewards",
            "Time to reward a group, while the engine goes on with others.",
            _spread(c.ACTOR_REWARD),
            unit="s",
        ),
    ]


def _weights() -> list[Panel]:
    return [
        curves(
            "Broadcast time",
            "Publishing keeps the learner; fetching goes on beside generation and is paid only in staleness.",
            [
                Query(RUN.mean(c.LEARNER_PUBLISH), "publish, mean"),
                Query(RUN.mean(c.ACTOR_WEIGHT_FETCH), "fetch, mean"),
                Query(RUN.quantile(0.95, c.ACTOR_WEIGHT_FETCH), "fetch, p95"),
            ],
            unit="s",
        ),
        curves(
            "Broadcast bytes",
            "Bytes of weights a second: served by the learner, and fetched by all actors.",
            [
                Query(RUN.rate(c.LEARNER_PUBLISHED_BYTES), "served"),
                Query(RUN.rate(c.ACTOR_WEIGHT_BYTES), "fetched"),
            ],
            unit="Bps",
        ),
        curves(
            "Update stall",
            "Time that loading new weights stopped an engine between two decoding steps.",
            _spread(c.ACTOR_STALL),
            unit="s",
        ),
    ]


def _engines() -> list[Panel]:
    return [
        curves(
            "KV cache in use",
            "Share of each engine's key-value cache that is in use. At 1 with requests waiting: raise "
            "actors.kv_cache_gib, or have fewer sequences at once. Stays at 0 with the scripted engine, which has "
            "none.",
            [Query(RUN.last(c.ACTOR_KV_CACHE), "{{process}}")],
            unit="percentunit",
            high=1,
        ),
        curves(
            "Completions in the engines",
            "Asked for, and of these waiting for a place in a decoding step.",
            [
                Query(f"sum({RUN.last(c.ACTOR_RUNNING)})", "asked for"),
                Query(f"sum({RUN.last(c.ACTOR_WAITING)})", "waiting"),
            ],
        ),
        curves(
            "Length of completions",
            "In tokens. A mean that runs up to actors.max_tokens, or falls to a few, is worth a look at the "
            "completions.",
            [*_spread(c.ACTOR_COMPLETION_TOKENS)],
        ),
        curves(
            "Completions cut off",
            "Share of the completions that met the token limit.",
            [Query(f"{RUN.rate(c.ACTOR_TRUNCATED)} / ({RUN.count(c.ACTOR_COMPLETION_TOKENS)} > 0)", "cut off")],
            unit="percentunit",
            high=1,
        ),
    ]
