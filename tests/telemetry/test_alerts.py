"""Each alert rule fires when it should and stays silent when it should not, as promtool evaluates it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from telemetry import catalogue as c
from telemetry.dashboards import alerts
from telemetry.dashboards.alerts import ALERTS, KUBERNETES_ALERTS, Alert
from telemetry.metric import Metric

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules" / "rapid.yml"
PROMETHEUS_RULE = ROOT / "deploy" / "kubernetes" / "base" / "rules.yaml"
HUB = 'run="trial", part="hub", process="hub", job="rapid", instance="h:1"'
LEARNER = 'run="trial", part="learner", process="learner-0", job="rapid", instance="l:1"'
ACTOR = 'run="trial", part="actor", process="actor-1", job="rapid", instance="a:1"'
LAUNCHER = 'run="trial", part="launcher", process="launcher", job="rapid", instance="m:1"'
SECOND_ACTOR = ACTOR.replace("actor-1", "actor-2").replace("a:1", "b:1")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: Debian's package prometheus has it"
)

Series = tuple[Metric | str, str, str]
"""Metric, labels, values in promtool's notation, one a minute: "0+2x30" is 0, 2, 4, ..., 60."""


@dataclass(frozen=True)
class Case:
    """What is scraped, and from when on an alert of this summary fires; None for never within two hours."""

    alert: Alert
    what: str
    series: list[Series]
    fires_at: str | None = None
    summary: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    looked_at: str = "2h"

    def __str__(self) -> str:
        return f"{self.alert.name}: {self.what}"


def _async(mode: str = "async") -> Series:
    return c.HUB_SCHEDULE, f'{HUB}, mode="{mode}"', "1x180"


def _labels(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in (pair.split("=") for pair in text.split(", "))}


def _starving(share: str) -> Series:
    return c.HUB_ACTIVITY, f'{HUB}, activity="{c.LEARNER_STARVES}"', share


def _pods(hub: str, learner: str, launcher: str, *actors: str) -> list[Series]:
    """Whether Prometheus reaches each of the pods."""
    reached = {HUB: hub, LEARNER: learner, LAUNCHER: launcher, **dict(zip((ACTOR, SECOND_ACTOR), actors, strict=False))}
    return [("up", labels, values) for labels, values in reached.items()]


def _heard_of(learners: str, actors: str) -> list[Series]:
    """Clients that the hub counts; the launcher is one that observes."""
    counts = {"learner": learners, "actor": actors, "observer": "1x180"}
    return [(c.HUB_CLIENTS, f'{HUB}, role="{role}"', values) for role, values in counts.items()]


CASES = [
    Case(
        alerts.STALLED,
        "nothing moved since the first minute",
        [(c.HUB_PROGRESS, HUB, "60x30"), (c.HUB_STALL_LIMIT, HUB, "120x30")],
        "4m",
        "trial: nothing has moved for 3m 0s",
        _labels(HUB),
    ),
    Case(
        alerts.STALLED,
        "a step every minute",
        [(c.HUB_PROGRESS, HUB, "0+60x180"), (c.HUB_STALL_LIMIT, HUB, "120x180")],
    ),
    Case(
        alerts.STALLED,
        "the limit is the run's own",
        [(c.HUB_PROGRESS, HUB, "0x180"), (c.HUB_STALL_LIMIT, HUB, "36000x180")],
    ),
    Case(
        alerts.BOUND_AT_RISK,
        "a tenth is too old",
        [
            (c.HUB_GROUPS_STALE, f'{HUB}, outcome="requeued"', "0+6x180"),
            (c.HUB_GROUPS_STALE, f'{HUB}, outcome="dropped"', "0x180"),
            (c.HUB_GROUPS_SUBMITTED, HUB, "0+60x180"),
        ],
        "20m",
        "trial: 10% of the groups come in beyond the staleness bound",
        {"run": "trial"},
    ),
    Case(
        alerts.BOUND_AT_RISK,
        "one in sixty is too old",
        [
            (c.HUB_GROUPS_STALE, f'{HUB}, outcome="requeued"', "0+1x180"),
            (c.HUB_GROUPS_SUBMITTED, HUB, "0+60x180"),
        ],
    ),
    Case(
        alerts.BOUND_BROKEN,
        "lag 3 of 2",
        [(c.LEARNER_LAG_MAX, LEARNER, "2 2 3x30"), (c.HUB_BOUND, HUB, "2x32")],
        "3m",
        "trial: a token of lag 3 was trained, beyond the bound",
        {"run": "trial"},
    ),
    Case(alerts.BOUND_BROKEN, "lag 2 of 2", [(c.LEARNER_LAG_MAX, LEARNER, "2x180"), (c.HUB_BOUND, HUB, "2x180")]),
    Case(
        alerts.LEARNER_STARVING,
        "it always waits",
        [_starving("1x180"), _async()],
        "20m",
        "trial: the learner waits for batches 100% of its time",
        {**_labels(HUB), "activity": c.LEARNER_STARVES},
    ),
    Case(alerts.LEARNER_STARVING, "it waits a third of the time", [_starving("1 0 0 1 0 0 " * 30), _async()]),
    Case(alerts.LEARNER_STARVING, "in sync it has to wait", [_starving("1x180"), _async("sync")]),
    Case(
        alerts.ACTOR_IDLE,
        "its engine works a quarter of the time",
        [(c.ACTOR_BUSY, ACTOR, "0.25x180"), _async()],
        "20m",
        "trial: the engine of actor-1 works 25% of its time",
        _labels(ACTOR),
    ),
    Case(alerts.ACTOR_IDLE, "its engine works", [(c.ACTOR_BUSY, ACTOR, "0.9x180"), _async()]),
    Case(alerts.ACTOR_IDLE, "it takes turns", [(c.ACTOR_BUSY, ACTOR, "0.2x180"), _async("alternate")]),
    Case(
        alerts.LEDGER_SUM_BROKEN,
        "one prompt is nowhere",
        [
            (c.HUB_ENTRIES, f'{HUB}, state="ready"', "10x180"),
            (c.HUB_ENTRIES, f'{HUB}, state="settled"', "89x180"),
            (c.HUB_OPENED, HUB, "100x180"),
        ],
        "5m",
        "trial: the ledger's states come to 99 prompts, which is not the number opened",
        {"run": "trial"},
    ),
    Case(
        alerts.LEDGER_SUM_BROKEN,
        "one scrape fell between two changes",
        [
            (c.HUB_ENTRIES, f'{HUB}, state="ready"', "10 9 10x178"),
            (c.HUB_ENTRIES, f'{HUB}, state="settled"', "90x180"),
            (c.HUB_OPENED, HUB, "100x180"),
        ],
    ),
    Case(
        alerts.DRIFT,
        "half a nat",
        [(c.LEARNER_LOGPROB_DIFF, LEARNER, "0.05x10 0.5x60")],
        "20m",
        "trial: generator and trainer differ by 0.50 nats a token at equal version",
        _labels(LEARNER),
    ),
    Case(alerts.DRIFT, "bfloat16", [(c.LEARNER_LOGPROB_DIFF, LEARNER, "0.05x180")]),
    Case(
        alerts.REWARD_COLLAPSE,
        "from 0.8 to 0.1",
        [(c.LEARNER_REWARD, LEARNER, "0+0.02x40 0.1x180")],
        "80m",
        "trial: mean reward has fallen to 0.10, under half of the best of 6 hours",
        _labels(LEARNER),
    ),
    Case(
        alerts.REWARD_COLLAPSE,
        "a learner that starts anew reads 0 for two minutes",
        [(c.LEARNER_REWARD, LEARNER, "0.6x60 0 0 0.6x120")],
        looked_at="70m",
    ),
    Case(alerts.REWARD_COLLAPSE, "a run that has learned nothing yet", [(c.LEARNER_REWARD, LEARNER, "0x180")]),
    Case(
        alerts.DISK_NEARLY_FULL,
        "a twentieth is free",
        [(c.LAUNCHER_DISK_FREE, LAUNCHER, "5e9x180"), (c.LAUNCHER_DISK_SIZE, LAUNCHER, "1e11x180")],
        "5m",
        "trial: 5% of the disk of the run's folder is free",
        _labels(LAUNCHER),
    ),
    Case(
        alerts.DISK_NEARLY_FULL,
        "a fifth is free",
        [(c.LAUNCHER_DISK_FREE, LAUNCHER, "2e10x180"), (c.LAUNCHER_DISK_SIZE, LAUNCHER, "1e11x180")],
    ),
    Case(
        alerts.UNREACHABLE,
        "an actor does not answer",
        [("up", ACTOR, "1 1 0x60")],
        "5m",
        "trial: actor-1 does not answer Prometheus",
        _labels(ACTOR),
    ),
    Case(alerts.UNREACHABLE, "a missed scrape", [("up", ACTOR, "1 1 0 1x177")]),
    Case(alerts.UNREACHABLE, "a target that is no process of ours", [("up", 'job="ray", instance="x:1"', "0x180")]),
    Case(
        alerts.UNREACHABLE_POD,
        "an actor that the hub hears of does not answer",
        [*_pods("1x60", "1x60", "1x60", "1x60", "1 1 0x58"), *_heard_of("1x60", "2x60")],
        "6m",
        "trial: 1 of the processes of part actor do not answer Prometheus",
        {"run": "trial", "part": "actor"},
    ),
    Case(
        alerts.UNREACHABLE_POD,
        "the learner does not answer",
        [*_pods("1x60", "1 1 0x58", "1x60", "1x60"), *_heard_of("1x60", "1x60")],
        "6m",
        "trial: 1 of the processes of part learner do not answer Prometheus",
        {"run": "trial", "part": "learner"},
    ),
    Case(
        alerts.UNREACHABLE_POD,
        "the launcher does not answer, while the hub does",
        [*_pods("1x60", "1x60", "1 1 0x58", "1x60"), *_heard_of("1x60", "1x60")],
        "6m",
        "trial: 1 of the processes of part launcher do not answer Prometheus",
        {"run": "trial", "part": "launcher"},
    ),
    Case(
        alerts.UNREACHABLE_POD,
        "the hub does not answer, while the launcher does",
        [*_pods("1 1 0x58", "1x60", "1x60", "1x60"), *_heard_of("1 1 stale", "1 1 stale")],
        "6m",
        "trial: 1 of the processes of part hub do not answer Prometheus",
        {"run": "trial", "part": "hub"},
    ),
    Case(
        alerts.UNREACHABLE_POD,
        "an actor leaves, and its pod stays until the autoscaler takes it",
        [*_pods("1x180", "1x180", "1x180", "1x180", "1x30 0x150"), *_heard_of("1x180", "2x30 1x150")],
    ),
    Case(
        alerts.UNREACHABLE_POD,
        "an actor is killed, which the hub notices a little later",
        [*_pods("1x180", "1x180", "1x180", "1x180", "1x118 0x62"), *_heard_of("1x180", "2x119 1x61")],
    ),
    Case(
        alerts.UNREACHABLE_POD,
        "the pods of a cluster on which no run goes on",
        _pods("0x180", "0x180", "0x180", "0x180", "0x180"),
    ),
]


def test_every_alert_is_tested_both_ways() -> None:
    for alert in {*ALERTS, *KUBERNETES_ALERTS}:
        assert {case.fires_at is None for case in CASES if case.alert is alert} == {True, False}, alert.name


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case: Case, tmp_path: Path) -> None:
    series = [
        {"series": f"{metric if isinstance(metric, str) else metric.name}{{{labels}}}", "values": values}
        for metric, labels, values in case.series
    ]
    expected: list[dict[str, Any]] = []
    if case.fires_at is not None:
        rule = case.alert.rule()
        notes = {**rule["annotations"], "summary": case.summary}  # type: ignore[dict-item]
        expected = [{"exp_labels": {**case.labels, **rule["labels"]}, "exp_annotations": notes}]  # type: ignore[dict-item]
    check = {"eval_time": case.fires_at or case.looked_at, "alertname": case.alert.name, "exp_alerts": expected}
    suite = {
        "rule_files": [str(RULES if case.alert in ALERTS else _spec(tmp_path))],
        "evaluation_interval": "15s",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": [check]}],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(suite))
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _spec(folder: Path) -> Path:
    """What the operator makes of the PrometheusRule: a rule file out of its spec."""
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(PROMETHEUS_RULE.read_text(encoding="utf-8"))["spec"]))
    return path


@needs_promtool
def test_promtool_finds_no_fault_with_the_rules_for_kubernetes(tmp_path: Path) -> None:
    command = ["promtool", "check", "rules", _spec(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(KUBERNETES_ALERTS)} rules found" in done.stdout


def test_on_kubernetes_only_the_rule_about_processes_is_another() -> None:
    assert [alert.name for alert in KUBERNETES_ALERTS] == [alert.name for alert in ALERTS]
    assert set(ALERTS) - set(KUBERNETES_ALERTS) == {alerts.UNREACHABLE}


@needs_promtool
@pytest.mark.parametrize("command", [("check", "rules", str(RULES)), ("check", "config", "prometheus.yml")])
def test_promtool_finds_no_fault(command: tuple[str, ...]) -> None:
    folder = ROOT / "deploy" / "prometheus"
    done = subprocess.run(["promtool", *command], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
