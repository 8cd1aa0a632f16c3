"""Every query of every panel, and every alert rule, on a real Prometheus that scrapes a real run."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.prometheus_server import PrometheusServer
from telemetry.catalogue import ACTOR_KV_CACHE, METRICS
from telemetry.dashboards.alerts import ALERTS, KUBERNETES_ALERTS, UNREACHABLE_POD
from telemetry.metric import Kind
from tests.e2e.conftest import ROOT, Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is missing: Debian's package prometheus has it"
    ),
]

RUN, WINDOW, SPAN_S = "trial", "20s", 45
BOARDS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[PrometheusServer]:
    server = PrometheusServer(tmp_path, evaluation_interval="1s")
    yield server
    server.close()


def scraped(prometheus: PrometheusServer) -> dict[str, str]:
    """Health of each process by name."""
    active = prometheus.get("targets", state="active")["activeTargets"]
    return {one["labels"]["process"]: one["health"] for one in active if one["labels"].get("run") == RUN}


def fill(expr: str) -> str:
    return expr.replace("$run", RUN).replace("$window", WINDOW)


def fault_of(prometheus: PrometheusServer, expr: str, legend: str, now: float) -> str | None:
    """What is wrong with the answer to a panel's query; None if nothing is."""
    try:
        data = prometheus.get("query_range", query=fill(expr), start=now - SPAN_S, end=now, step=1)
    except ValueError as error:
        return f"refused: {error}"
    series = data["result"]
    if data["resultType"] != "matrix" or not series:
        return "no data"
    if not any(math.isfinite(float(value)) for one in series for _, value in one["values"]):
        return "no number among the values"
    labels = re.findall(r"{{(\w+)}}", legend)
    if not labels and len(series) != 1:
        return f"{len(series)} series for one legend"
    missing = {label for label in labels for one in series if not one["metric"].get(label)}
    return f"series without the labels {sorted(missing)} of the legend" if missing else None


def faults(prometheus: PrometheusServer) -> list[str]:
    """Of all queries of all panels, without exception."""
    now, found = time.time(), []
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                fault = fault_of(prometheus, target["expr"], target["legendFormat"].replace("__auto", ""), now)
                found += [f"{name}, {panel['title']}: {target['expr']}: {fault}"] if fault else []
    return found


def metrics_of(expr: str) -> set[str]:
    return set(re.findall(r"rapid_\w+", expr))


def missing_series(prometheus: PrometheusServer) -> set[str]:
    """Names that the catalogue promises and Prometheus has not."""
    names = set()
    for metric in METRICS.values():
        suffixes = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        names |= {metric.name + suffix for suffix in suffixes}
    return names - set(prometheus.get("label/__name__/values"))


def test_every_query_of_every_panel_and_every_rule_has_data(
    start: Callable[..., Run], prometheus: PrometheusServer
) -> None:
    run = start(
        RUN,
        f"run.directory={prometheus.runs}",
        "schedule.steps=100000",
        "learner.checkpoint_every=5",
        "buffer.client_timeout_s=15",
        "task.eval.every=2",
        # It is not to learn: once a task is solved, groups without a signal keep the engine busy between rare steps.
        "learner.lr=1e-6",
    )
    run.folder = prometheus.runs / RUN
    run.wait_for_step(12)
    # Rates want a window of scrapes, and the next steps.
    first = time.time()
    run.wait_until((run.folder / "eval.jsonl").exists, "evaluation")
    run.wait_until(lambda: time.time() - first > 25, "time for some scrapes")
    run.wait_until(lambda: not missing_series(prometheus), "scrape of what the evaluation exported")

    everyone = dict.fromkeys(("hub", "launcher", "learner-0", "actor-0", "eval-0"), "up")
    settle(lambda: scraped(prometheus), everyone)
    settle(lambda: faults(prometheus), [])
    settle(lambda: rule_faults(prometheus), [])
    check_values(prometheus)
    check_that_the_hub_knows_the_addresses(run)
    check_that_targets_follow(run, prometheus)

    run.interrupt()
    assert run.finish() == 0
    assert list((prometheus.runs / ".targets").iterdir()) == []
    wait_for_no_targets(prometheus)


def settle(look: Callable[[], Any], expected: Any) -> None:
    """Until it is so: a busy machine may let one scrape of a second pass by."""
    deadline = time.monotonic() + 45
    while (found := look()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(1)


def rule_faults(prometheus: PrometheusServer) -> list[str]:
    """Rules that Prometheus cannot evaluate, whose value has no data, or that fire on a run that is well."""
    (group,) = prometheus.get("rules")["groups"]
    loaded = {rule["name"]: rule for rule in group["rules"]}
    found = [f"{alert.name}: not loaded" for alert in ALERTS if alert.name not in loaded]
    found += [f"{name}: {rule.get('lastError')}" for name, rule in loaded.items() if rule["health"] != "ok"]
    found += [f"{name}: fires {rule['alerts']}" for name, rule in loaded.items() if rule["state"] == "firing"]
    for alert in dict.fromkeys((*ALERTS, *KUBERNETES_ALERTS)):
        for expr in (alert.value, *metrics_of(alert.expr)):
            result = prometheus.get("query", query=expr)["result"]
            if not result or any(one["metric"].get("run") != RUN for one in result):
                found.append(f"{alert.name}: {expr}: {result or 'no data'}")
        prometheus.get("query", query=alert.expr)
    return found


def check_values(prometheus: PrometheusServer) -> None:
    """Figures that a run that is well must show."""

    def newest(name: str, title: str, place: int = 0) -> list[float]:
        panel = next(one for one in BOARDS[name]["panels"] if one["title"] == title)
        result = prometheus.get("query", query=fill(panel["targets"][place]["expr"]))["result"]
        return [float(one["value"][1]) for one in result]

    # That of Kubernetes: of each part as many are reached as the hub, or the launcher, knows of.
    settle(lambda: missed(prometheus), {"hub": 0, "launcher": 0, "learner": 0, "actor": 0})
    assert newest("ledger", "Prompts unaccounted for") == [0]
    settle(lambda: newest("health", "Since anything moved")[0] < 20, True)
    assert newest("health", "Room to the bound")[0] >= 0
    settle(lambda: newest("throughput", "Tokens a second", 1)[0] > 0, True)
    (kv_cache,) = prometheus.get("query", query=f"max_over_time({ACTOR_KV_CACHE.name}[1m])")["result"]
    assert 0 < float(kv_cache["value"][1]) <= 1


def missed(prometheus: PrometheusServer) -> dict[str, float]:
    """Processes of each part that are not reached."""
    result = prometheus.get("query", query=UNREACHABLE_POD.value)["result"]
    return {one["metric"]["part"]: float(one["value"][1]) for one in result}


def check_that_the_hub_knows_the_addresses(run: Run) -> None:
    """What a launcher on another machine than the processes would write."""
    processes = {"hub": "hub", "learner": "learner-0", "actor-0": "actor-0", "eval-0": "eval-0"}
    settle(lambda: told_addresses(run), {name: written(run, process) for name, process in processes.items()})


def told_addresses(run: Run) -> dict[str, str]:
    """What the hub says where each process serves its metrics."""
    status = run.status()
    return {"hub": status.metrics_address} | {client.name: client.metrics_address for client in status.clients}


def written(run: Run, process: str) -> str:
    """Address in a process's own file."""
    return str(json.loads((run.folder / "exporters" / f"{process}.json").read_text())[0]["targets"][0])


def check_that_targets_follow(run: Run, prometheus: PrometheusServer) -> None:
    """An actor that is killed is replaced by one at another address, and Prometheus scrapes that one."""
    address = written(run, "actor-0")
    for process in run.parts("ActorPart"):
        process.kill()
    run.wait_until(lambda: address not in prometheus.targets(), "end of the killed actor's target")
    run.wait_until(lambda: scraped(prometheus).get("actor-0") == "up", "target of the new actor")


def wait_for_no_targets(prometheus: PrometheusServer) -> None:
    deadline = time.monotonic() + 30
    while prometheus.targets():
        assert time.monotonic() < deadline, prometheus.targets()
        time.sleep(0.2)
