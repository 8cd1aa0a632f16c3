"""Ledger and loss: whether the sum adds up, what was given up, and how the optimizer fares."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from telemetry import catalogue as c
from telemetry.dashboards.board import RUN, board
from telemetry.dashboards.panels import Levels, Panel, Query, curves, figure
from telemetry.summary import TERMINAL_STATES


def ledger() -> Dashboard:
    """The dashboard."""
    return board(
        "rapid-ledger",
        "ledger and loss",
        "Where every prompt is, what came to nothing and why, and the optimizer's own figures.",
        {"The sum": _sums(), "What came to nothing": _lost(), "Loss": _loss()},
    )


def _sums() -> list[Panel]:
    missing = f"max({RUN.last(c.HUB_OPENED)}) - sum({RUN.last(c.HUB_ENTRIES)})"
    return [
        figure(
            "Prompts unaccounted for",
            "Prompts opened less the sum of all states. Anything but 0 is a defect of the ledger.",
            Query(f"abs({missing})"),
            decimals=0,
            levels=Levels(amber=0.5, red=1),
        ),
        figure("Prompts opened", "Prompts that the ledger has opened.", Query(RUN.last(c.HUB_OPENED)), decimals=0),
        figure(
            "Dead letters",
            "Prompts given up after too many failed attempts; `rapid ledger RUN` names them with the reason.",
            Query(RUN.last(c.HUB_DEAD_LETTERS)),
            decimals=0,
            levels=Levels(amber=1, red=100),
        ),
        figure(
            "Settled",
            "Prompts whose training is in a checkpoint: a crash cannot undo them.",
            Query(f"sum({RUN.last(c.HUB_ENTRIES, state=TERMINAL_STATES[0])})"),
            decimals=0,
        ),
        figure(
            "Steps beyond the checkpoint",
            "Optimizer steps that a crash of the learner would repeat.",
            Query(f"{RUN.last(c.LEARNER_STEP)} - {RUN.last(c.LEARNER_SETTLED)}"),
            decimals=0,
        ),
        figure("Leases held", "Prompts that actors work on.", Query(RUN.last(c.HUB_HELD_LEASES)), decimals=0),
        curves(
            "States of the ledger",
            "All prompts opened, by state. The stack's top is the number opened.",
            [Query(RUN.last(c.HUB_ENTRIES), "{{state}}")],
            stacked=True,
            width=12,
        ),
        curves(
            "Endings",
            "Prompts that have ended, by how. Each prompt of each epoch ends in exactly one of these.",
            [Query(RUN.last(c.HUB_ENTRIES, state=state), state) for state in TERMINAL_STATES],
            stacked=True,
            width=12,
        ),
    ]


def _lost() -> list[Panel]:
    submitted = RUN.rate(c.HUB_GROUPS_SUBMITTED)
    return [
        curves(
            "Filtered share",
            "Share of the groups whose rewards were all equal, so that they teach nothing. Near 1: the task is too "
            "hard or too easy for the policy.",
            [Query(f"{RUN.rate(c.HUB_GROUPS_FILTERED)} / ({submitted} > 0)", "filtered")],
            unit="percentunit",
            high=1,
        ),
        curves(
            "Leases that came back",
            "Leases a second that ended without a group, by why.",
            [
                Query(RUN.rate(c.HUB_LEASES_RETURNED, "reason"), "{{reason}}"),
                Query(RUN.rate(c.HUB_LEASES_EXPIRED), "expired"),
            ],
            unit="ops",
        ),
        curves(
            "Reward failures and dead letters",
            "Within the window: completions whose reward function raised, hung or gave no number, and prompts given "
            "up.",
            [
                Query(f"sum(increase({RUN.last(c.ACTOR_REWARD_FAILURES)}[$window]))", "reward failures"),
                Query(f"increase({RUN.last(c.HUB_DEAD_LETTERS)}[$window])", "dead letters"),
            ],
        ),
    ]


def _loss() -> list[Panel]:
    return [
        curves(
            "Loss",
            "The surrogate loss. Its value means little in policy-gradient learning; a sudden jump means something.",
            [Query(RUN.learned(c.LEARNER_LOSS), "loss")],
            low=None,
        ),
        curves(
            "Gradient norm",
            "Before clipping. Spikes go with high clipped shares; growth without end comes before divergence.",
            [Query(RUN.learned(c.LEARNER_GRAD_NORM), "norm")],
        ),
        curves(
            "Learning rate",
            "Of the newest step.",
            [Query(RUN.learned(c.LEARNER_LR), "learning rate")],
            unit="sci",
        ),
    ]
