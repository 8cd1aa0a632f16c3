"""Alert rules: what is wrong with a run, said by Prometheus. docs/operations.md says what to do about each.

One list for a Prometheus that reads the launcher's target files, and one for Kubernetes, where it finds pods.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import yaml

from telemetry import catalogue as c
from telemetry.dashboards.limits import (
    BUSY_SHARE,
    DISK_FREE_SHARE,
    DRIFT_NATS,
    REWARD_SHARE,
    STALE_SHARE,
    WAIT_SHARE,
)
from telemetry.dashboards.promql import Scope

RUNBOOK = "docs/operations.md"
JOB = "rapid"
"""Prometheus' job of our processes, see deploy/prometheus/prometheus.yml."""
_ALL = Scope("", "10m")


@dataclass(frozen=True)
class Alert:
    """One rule: it fires when `condition`, such as "> 0.5", holds of `value` for as long as `hold`.

    `value` has data at any moment of a run, alert or not. `summary` is a template of Prometheus'.
    """

    name: str
    value: str
    condition: str
    hold: str
    severity: str
    summary: str
    description: str

    @property
    def expr(self) -> str:
        """The whole expression."""
        return f"{self.value} {self.condition}"

    @property
    def runbook(self) -> str:
        """Where to read on: the section of this name."""
        return f"{RUNBOOK}#{self.name.lower()}"

    def rule(self) -> dict[str, object]:
        """As Prometheus wants it."""
        notes = {"summary": self.summary, "description": self.description, "runbook": self.runbook}
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity},
            "annotations": notes,
        }


# In the other schedules one side waits for the other by design.
_WHILE_ASYNC = f"and on (run) {_ALL.last(c.HUB_SCHEDULE, mode='async')} == 1"
_REWARD = f"avg_over_time({c.LEARNER_REWARD.name}[{_ALL.window}])"

STALLED = Alert(
    "RapidStalled",
    f"time() - {c.HUB_PROGRESS.name}",
    f"> {c.HUB_STALL_LIMIT.name}",
    "30s",
    "critical",
    "{{ $labels.run }}: nothing has moved for {{ $value | humanizeDuration }}",
    "No prompt, no version and no weights moved for longer than telemetry.stall_s. Somebody waits for somebody.",
)
BOUND_AT_RISK = Alert(
    "RapidBoundAtRisk",
    f"{_ALL.rate(c.HUB_GROUPS_STALE, 'run')} / {_ALL.rate(c.HUB_GROUPS_SUBMITTED, 'run')}",
    f"> {STALE_SHARE}",
    "5m",
    "warning",
    "{{ $labels.run }}: {{ $value | humanizePercentage }} of the groups come in beyond the staleness bound",
    "What is beyond the bound is never trained on, so that it was generated in vain.",
)
BOUND_BROKEN = Alert(
    "RapidBoundBroken",
    f"max by (run) ({c.LEARNER_LAG_MAX.name})",
    f"> max by (run) ({c.HUB_BOUND.name})",
    "0s",
    "critical",
    "{{ $labels.run }}: a token of lag {{ $value }} was trained, beyond the bound",
    "The bound is a promise of the hub's. This is a defect of Rapid.",
)
LEARNER_STARVING = Alert(
    "RapidLearnerStarving",
    f"avg_over_time({_ALL.last(c.HUB_ACTIVITY, activity=c.LEARNER_STARVES)}[{_ALL.window}])",
    f"> {WAIT_SHARE} {_WHILE_ASYNC}",
    "5m",
    "warning",
    "{{ $labels.run }}: the learner waits for batches {{ $value | humanizePercentage }} of its time",
    "Generation is the bottleneck: the learner could train more than the actors give it.",
)
ACTOR_IDLE = Alert(
    "RapidActorIdle",
    f"avg_over_time({c.ACTOR_BUSY.name}[{_ALL.window}])",
    f"< {BUSY_SHARE} {_WHILE_ASYNC}",
    "5m",
    "warning",
    "{{ $labels.run }}: the engine of {{ $labels.process }} works {{ $value | humanizePercentage }} of its time",
    "Training, rewards or the actor itself are the bottleneck: its engine is paid for and stands still.",
)
LEDGER_SUM_BROKEN = Alert(
    "RapidLedgerSumBroken",
    f"sum by (run) ({c.HUB_ENTRIES.name})",
    f"!= max by (run) ({c.HUB_OPENED.name})",
    "1m",
    "critical",
    "{{ $labels.run }}: the ledger's states come to {{ $value }} prompts, which is not the number opened",
    "A prompt was lost or counted twice. This is a defect of Rapid.",
)
DRIFT = Alert(
    "RapidGeneratorTrainerDrift",
    c.LEARNER_LOGPROB_DIFF.name,
    f"> {DRIFT_NATS}",
    "5m",
    "critical",
    '{{ $labels.run }}: generator and trainer differ by {{ $value | printf "%.2f" }} nats a token at equal version',
    "They compute the same model, so that the engine's weights are not the learner's, or are computed otherwise.",
)
REWARD_COLLAPSE = Alert(
    "RapidRewardCollapse",
    _REWARD,
    f"< {REWARD_SHARE} * (max_over_time({_REWARD}[6h:5m]) > 0)",
    "10m",
    "critical",
    '{{ $labels.run }}: mean reward has fallen to {{ $value | printf "%.2f" }}, under half of the best of 6 hours',
    "The policy has lost what it had learned.",
)
DISK_NEARLY_FULL = Alert(
    "RapidDiskNearlyFull",
    f"{c.LAUNCHER_DISK_FREE.name} / {c.LAUNCHER_DISK_SIZE.name}",
    f"< {DISK_FREE_SHARE}",
    "2m",
    "warning",
    "{{ $labels.run }}: {{ $value | humanizePercentage }} of the disk of the run's folder is free",
    "The next checkpoint, or the ledger, may find no room.",
)
UNREACHABLE = Alert(
    "RapidProcessUnreachable",
    f'up{{job="{JOB}"}}',
    "== 0",
    "1m",
    "warning",
    "{{ $labels.run }}: {{ $labels.process }} does not answer Prometheus",
    "The process hangs or was killed, or its address cannot be reached from Prometheus.",
)

# A pod is a target for as long as it lives, whether or not a run has a process in it: actors leave theirs to the
# autoscaler, which takes minutes, and between two runs nobody is there. So what answers is held against what should:
# the actors and the learner that the hub hears of, the launcher wherever there is a hub, and the hub wherever there
# is a launcher.
_REACHED = f'sum by (run, part) (up{{job="{JOB}"}})'


def _beside(part: str, other: str) -> str:
    """One process of this part for each run that has one of the other."""
    return f'label_replace(max by (run) (up{{job="{JOB}", part="{other}"}}), "part", "{part}", "", "")'


_CLIENTS = Scope('role!="observer"', _ALL.window).last(c.HUB_CLIENTS)
_HEARD_OF = f'label_replace(max by (run, role) ({_CLIENTS}), "part", "$1", "role", "(.+)")'
UNREACHABLE_POD = replace(
    UNREACHABLE,
    value=f"({_HEARD_OF} or {_beside('launcher', 'hub')} or {_beside('hub', 'launcher')}) - on (run, part) {_REACHED}",
    condition="> 0",
    hold="2m",
    summary="{{ $labels.run }}: {{ $value }} of the processes of part {{ $labels.part }} do not answer Prometheus",
    description="A process hangs, or its pod cannot be reached from Prometheus.",
)

ALERTS = (
    STALLED,
    BOUND_AT_RISK,
    BOUND_BROKEN,
    LEARNER_STARVING,
    ACTOR_IDLE,
    LEDGER_SUM_BROKEN,
    DRIFT,
    REWARD_COLLAPSE,
    DISK_NEARLY_FULL,
    UNREACHABLE,
)

KUBERNETES_ALERTS = tuple(UNREACHABLE_POD if alert is UNREACHABLE else alert for alert in ALERTS)

_HEAD = (
    "# Generated by `python -m telemetry.dashboards` from telemetry/dashboards/alerts.py; a test keeps it current.\n"
)


def render_rules() -> str:
    """Prometheus' rule file."""
    return _render(_groups(ALERTS))


def render_prometheus_rule() -> str:
    """The same for the Prometheus operator."""
    metadata = {"name": "rapid"}
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata}
    return _render({**kind, "spec": _groups(KUBERNETES_ALERTS)})


def _groups(alerts: Iterable[Alert]) -> dict[str, object]:
    return {"groups": [{"name": "rapid", "rules": [alert.rule() for alert in alerts]}]}


def _render(document: dict[str, object]) -> str:
    return _HEAD + yaml.safe_dump(document, sort_keys=False, width=118, allow_unicode=True)
