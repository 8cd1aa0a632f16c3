"""Staleness: how far off-policy training is, and what that costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from telemetry import catalogue as c
from telemetry.dashboards.board import RUN, board
from telemetry.dashboards.limits import DRIFT_NATS, STALE_SHARE
from telemetry.dashboards.panels import BOUND, Panel, Query, curves


def staleness() -> Dashboard:
    """The dashboard."""
    return board(
        "rapid-staleness",
        "staleness",
        "How old what is trained on is, what the importance weights make of it, and what was too old to train on.",
        {"Lag": _lag(), "Off-policy": [*_off_policy(), *_actors_weights()], "Too old, and why": _too_old()},
    )


def _lag() -> list[Panel]:
    quantiles = [Query(f"ceil({RUN.quantile(q, c.HUB_GROUP_LAG)})", f"p{round(100 * q)}") for q in (0.5, 0.9, 0.99)]
    share = f"{RUN.rate(c.LEARNER_LAG_TOKENS, 'lag')} / on () group_left () {RUN.rate(c.LEARNER_LAG_TOKENS)}"
    # The hub and an actor are not scraped at the same moment.
    behind = f"clamp_min({RUN.last(c.ACTOR_VERSION)} * -1 + on (run) group_left () {RUN.last(c.HUB_VERSION)}, 0)"
    return [
        curves(
            "Lag by quantile",
            "Of the groups that went to the learner, each with the largest lag of its tokens. Exact up to a lag of 8, "
            "rounded up to the histogram's next bound above.",
            [*quantiles, Query(RUN.last(c.HUB_BOUND), BOUND)],
        ),
        curves(
            "Tokens trained by lag",
            "Shares of the trained tokens. Much at lag 0 is nearly on-policy; shares that move to high lags mean that "
            "the actors run ahead.",
            [Query(share, "lag {{lag}}")],
            unit="percentunit",
            stacked=True,
            high=1,
        ),
        curves(
            "Actors behind the learner",
            "Optimizer steps between the learner's newest version and the weights each actor generates with. Beyond "
            "the bound an actor gets no leases until it has loaded newer ones.",
            [Query(behind, "{{process}}"), Query(RUN.last(c.HUB_BOUND), BOUND)],
        ),
    ]


def _off_policy() -> list[Panel]:
    lags = "lag {{lag}}"
    return [
        curves(
            "Clipped share",
            "Share of the importance weights or tokens that the loss clipped or masked, by lag and of the whole batch. "
            "It grows with the lag; a third or more means that much of the gradient is biased by the clip.",
            [Query(RUN.by_lag(c.LEARNER_LAG_CLIPPED), lags), Query(RUN.learned(c.LEARNER_CLIPPED), "all")],
            unit="percentunit",
            high=1,
        ),
        curves(
            "Effective sample size",
            "Share of the samples that the importance weights leave effective. 1 is on-policy; below 0.3 most of a "
            "batch counts for nothing: lower schedule.max_staleness or learner.lr.",
            [Query(RUN.by_lag(c.LEARNER_LAG_ESS), lags), Query(RUN.learned(c.LEARNER_ESS), "all")],
            unit="percentunit",
            high=1,
        ),
        curves(
            "KL from the generating policy",
            "In nats a token. It should grow slowly with the lag; at lag 0 it is the numerical difference of engine "
            "and trainer alone.",
            [Query(RUN.by_lag(c.LEARNER_LAG_KL), lags), Query(RUN.learned(c.LEARNER_KL), "all")],
        ),
        curves(
            "Mean importance weight",
            "Before clipping; 1 on-policy, and near 1 while the estimator is sound.",
            [Query(RUN.by_lag(c.LEARNER_LAG_RATIO), lags), Query(RUN.learned(c.LEARNER_RATIO), "all")],
        ),
        curves(
            "Spread of the importance weights",
            "The 5 %, 50 % and 95 % quantile before clipping, by lag. They part as the lag grows; far from 1 on both "
            "sides, a few samples carry the gradient.",
            [Query(RUN.by_lag(c.LEARNER_LAG_QUANTILE), "lag {{lag}}, {{quantile}}")],
        ),
        curves(
            "Gradients of the fresher and the staler half",
            "Cosine between them: 1 is the same direction, and near 0 the stale half is noise to the fresh one. "
            "Measured every learner.gradient_cosine_every steps; 0 throughout where it is not.",
            [Query(RUN.learned(c.LEARNER_GRADIENT_COSINE), "cosine")],
        ),
        curves(
            "Entropy, and KL from the start",
            "Of the policy, in nats a token. A fall of the entropy towards 0 ends exploration. 0 throughout where a "
            "run measures no entropy (learner.entropy) or has no reference model (algorithm.kl_coefficient).",
            [Query(RUN.learned(c.LEARNER_ENTROPY), "entropy"), Query(RUN.learned(c.LEARNER_KL_REFERENCE), "KL")],
        ),
    ]


def _actors_weights() -> list[Panel]:
    return [
        curves(
            "Drift between generator and trainer",
            "Mean |generator - trainer| logprob at equal version. The two programs compute the same model, so that "
            "this is rounding; a rise says that the engine's weights are not the learner's.",
            [Query(RUN.learned(c.LEARNER_LOGPROB_DIFF), "mean difference")],
            limit=DRIFT_NATS,
        ),
        curves(
            "Age of the actors' weights",
            "Time since each actor loaded its newest weights: the time between two broadcasts, if all is well.",
            [Query(f"time() - ({RUN.last(c.ACTOR_LOADED)} > 0)", "{{process}}")],
            unit="s",
        ),
    ]


def _too_old() -> list[Panel]:
    submitted = RUN.rate(c.HUB_GROUPS_SUBMITTED)
    ended = [
        Query(RUN.rate(c.HUB_GROUPS_STALE, outcome="requeued"), "too old, generated again"),
        Query(RUN.rate(c.HUB_GROUPS_STALE, outcome="dropped"), "too old, dropped"),
        Query(RUN.rate(c.HUB_GROUPS_REFUSED), "refused: lease ran out"),
        Query(RUN.rate(c.HUB_LEASES_EXPIRED), "leases expired"),
    ]
    return [
        curves(
            "Stale and requeued groups",
            "Groups a second that were generated in vain. The hub grants leases so that this stays at 0; actors that "
            "die or stand still for long make some.",
            ended,
            unit="ops",
        ),
        curves(
            "Share of groups too old",
            "Of the groups that come in. Above the line, generation is wasted.",
            [Query(f"{RUN.rate(c.HUB_GROUPS_STALE)} / ({submitted} > 0)", "too old")],
            unit="percentunit",
            limit=STALE_SHARE,
        ),
        curves(
            "Buffered groups by lag",
            "Groups that wait in the buffer, by their lag to the version that trains next.",
            [Query(RUN.last(c.HUB_BUFFERED), "lag {{lag}}")],
            stacked=True,
        ),
        curves(
            "Ledger states",
            "Prompts by state. Those leased, buffered and pulled are under way; trained ones wait for a checkpoint.",
            [Query(RUN.last(c.HUB_ENTRIES), "{{state}}")],
            stacked=True,
        ),
    ]
