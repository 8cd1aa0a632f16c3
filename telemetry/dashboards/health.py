"""Run health: what to look at first."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from telemetry import catalogue as c
from telemetry.dashboards.board import RUN, board
from telemetry.dashboards.limits import BUSY_SHARE, DISK_FREE_SHARE, WAIT_SHARE
from telemetry.dashboards.panels import BOUND, Levels, Panel, Query, curves, density, figure


def health() -> Dashboard:
    """The dashboard."""
    return board(
        "rapid-health",
        "run health",
        "Is the run well? Reward rises, the lag stays under its bound, and nobody waits for long.",
        {
            "Now": _now(),
            "Learning": _learning(),
            "Held-out prompts": _evaluations(),
            "Who waits": _waits(),
            "Actors and disk": _resources(),
        },
    )


def _now() -> list[Panel]:
    idle = f"time() - {RUN.last(c.HUB_PROGRESS)}"
    room = f"max({RUN.last(c.HUB_BOUND)}) - max({RUN.learned(c.LEARNER_LAG_MAX)})"
    actors = RUN.last(c.HUB_CLIENTS, role="actor")
    return [
        figure("Optimizer step", "Optimizer steps committed.", Query(RUN.last(c.HUB_VERSION)), decimals=0),
        figure("Reward", "Mean reward of the newest step, filtered groups included.", _reward(), decimals=3),
        figure(
            "Room to the bound",
            "The staleness bound less the largest lag of the newest batch. 0 is usual when actors are faster than the "
            "learner; below 0 must never happen.",
            Query(room),
            decimals=0,
            levels=Levels(amber=0, red=-0.5),
        ),
        figure("Actors", "Actors that the hub hears of.", Query(actors), decimals=0, levels=Levels(amber=1, red=0.5)),
        figure(
            "Since anything moved",
            "Time since a prompt, the version or the weights last moved. Red says little by itself: compare "
            "telemetry.stall_s, at which the run counts as stalled.",
            Query(idle),
            unit="s",
            decimals=0,
            levels=Levels(amber=60, red=120),
        ),
        figure(
            "Generated",
            "Tokens a second of all actors that reached the hub.",
            Query(RUN.rate(c.HUB_TOKENS)),
            decimals=0,
        ),
    ]


def _reward() -> Query:
    return Query(RUN.learned(c.LEARNER_REWARD), "each step")


def _learning() -> list[Panel]:
    smooth = f"avg_over_time({RUN.last(c.LEARNER_REWARD)}[$window]) and {RUN.last(c.LEARNER_STEP)} > 0"
    lag = [
        Query(RUN.learned(c.LEARNER_LAG_MAX), "largest"),
        Query(RUN.learned(c.LEARNER_LAG_MEAN), "mean"),
        Query(RUN.last(c.HUB_BOUND), BOUND),
    ]
    return [
        curves(
            "Reward",
            "Mean reward of all groups that came in since the step before, filtered ones included, so that it does not "
            "rise only because easy prompts are filtered. Noise from step to step is usual; a fall of the mean is not.",
            [_reward(), Query(smooth, "mean over $window")],
            low=None,
        ),
        density(
            "Lag distribution",
            "Groups that went to the learner, by the largest lag of any of their tokens, in optimizer steps. A dark "
            "band that climbs to the bound: the actors are ahead of the learner. All at 0: it waits for them.",
            Query(RUN.buckets(c.HUB_GROUP_LAG), "{{le}}"),
            axis="optimizer steps",
        ),
        curves(
            "Lag and its bound",
            "Lag of the trained tokens, in optimizer steps, under the bound schedule.max_staleness, which no trained "
            "token ever exceeds.",
            lag,
        ),
    ]


def _evaluations() -> list[Panel]:
    return [
        curves(
            "pass@k",
            "Held-out prompts of which one of k completions is right, with the 95 % interval. Only for runs with "
            "task.eval.every.",
            [
                Query(RUN.last(c.EVAL_PASS), "pass@{{k}}"),
                Query(RUN.last(c.EVAL_PASS_LOW), "pass@{{k}}, low"),
                Query(RUN.last(c.EVAL_PASS_HIGH), "pass@{{k}}, high"),
            ],
            unit="percentunit",
            high=1,
        ),
        curves(
            "Held-out reward",
            "Mean reward of the completions drawn, the share of prompts whose likeliest completion is right, and the "
            "share of completions cut off at the token limit.",
            [
                Query(RUN.last(c.EVAL_REWARD), "reward"),
                Query(RUN.last(c.EVAL_GREEDY), "greedy"),
                Query(RUN.last(c.EVAL_TRUNCATED), "cut off"),
            ],
        ),
        curves(
            "Steps evaluated",
            "The weights evaluated last against those committed. Versions left out were due while the evaluator was "
            "busy: give it cores of its own, or raise task.eval.every. What was not judged is in no figure.",
            [
                Query(RUN.last(c.EVAL_VERSION), "evaluated"),
                Query(RUN.last(c.HUB_VERSION), "committed"),
                Query(RUN.last(c.EVAL_LEFT_OUT), "versions left out"),
                Query(RUN.last(c.EVAL_UNJUDGED), "completions not judged"),
                Query(RUN.mean(c.EVAL_DURATION), "seconds each"),
            ],
        ),
    ]


def _waits() -> list[Panel]:
    shares = [("train", c.LEARNER_TRAIN), ("wait", c.LEARNER_WAIT), ("publish", c.LEARNER_PUBLISH)]
    shares.append(("checkpoint", c.LEARNER_CHECKPOINT))
    busy = [Query(RUN.last(c.ACTOR_BUSY), "{{process}}")]
    return [
        curves(
            "Who does what",
            "Learner and actors by what they do or wait for. 'actor waits for a lease' is back-pressure: the learner "
            "is the slower side. 'learner waits for a batch': the actors are.",
            [Query(RUN.last(c.HUB_ACTIVITY), "{{activity}}")],
            stacked=True,
        ),
        curves(
            "Engines busy",
            "Share of its time in which an actor's engine has requests. Below the line for long: more actors than the "
            "learner can use, or rewards that take too long.",
            busy,
            unit="percentunit",
            limit=BUSY_SHARE,
            high=1,
        ),
        curves(
            "The learner's time",
            "Seconds a second by what the learner does with them, added up at the end of each step. Waiting above the "
            "line: more actors would help.",
            [Query(RUN.spent(histogram), name) for name, histogram in shares],
            unit="percentunit",
            stacked=True,
            limit=WAIT_SHARE,
        ),
    ]


def _resources() -> list[Panel]:
    actors = [
        ("wanted", c.LAUNCHER_WANTED),
        ("running", c.LAUNCHER_RUNNING),
        ("waiting for a place", c.LAUNCHER_PENDING),
        ("advised", c.LAUNCHER_ADVISED),
    ]
    free = f"{RUN.last(c.LAUNCHER_DISK_FREE)} / {RUN.last(c.LAUNCHER_DISK_SIZE)}"
    return [
        curves(
            "Actors",
            "Actors that the run was asked to have, those that run, those that wait for a place on the cluster, and "
            "how many would balance the learner.",
            [Query(RUN.last(metric), name) for name, metric in actors],
        ),
        curves(
            "Restarts and failures",
            "Actors started anew, and groups handed back as failed, within the window. Both are borne; many of them "
            "cost throughput, and the reasons stand in the actors' logs.",
            [
                Query(f"increase({RUN.last(c.LAUNCHER_RESTARTED)}[$window])", "actors restarted"),
                Query(f"increase({RUN.last(c.HUB_LEASES_RETURNED, reason='failed')}[$window])", "groups failed"),
            ],
        ),
        curves(
            "Disk free",
            "Free share of the disk of the run's folder, which checkpoints fill. Older ones go as "
            "learner.keep_checkpoints says.",
            [Query(free, "free")],
            unit="percentunit",
            limit=DISK_FREE_SHARE,
            high=1,
        ),
    ]
