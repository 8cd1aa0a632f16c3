"""The generated files of `deploy/` are current, well formed, and ask for metrics that are there."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("grafana_foundation_sdk", reason="a development dependency; make installs it")

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from telemetry import catalogue
from telemetry.catalogue import METRICS
from telemetry.dashboards.__main__ import generated_files
from telemetry.dashboards.alerts import ALERTS, KUBERNETES_ALERTS
from telemetry.dashboards.promql import Scope
from telemetry.metric import Kind
from tests.deploy.kit import faults

ROOT = Path(__file__).parents[2]
FILES = generated_files()
BOARDS = {path.stem: json.loads(text) for path, text in FILES.items() if path.suffix == ".json"}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_generated_files_are_current(path: Path) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == FILES[path], "run: make docs"


def test_nothing_else_lies_among_the_dashboards() -> None:
    found = {path.relative_to(ROOT) for path in (ROOT / "deploy" / "grafana" / "dashboards").iterdir()}
    assert found == {path for path in FILES if path.suffix == ".json"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_what_the_types_of_grafana_say(name: str) -> None:
    register_default_plugins()
    read = Dashboard.from_json(BOARDS[name])
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == BOARDS[name]


GRAFANA = "12.4"


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_what_the_grafana_of_compose_takes(name: str) -> None:
    # The types above are of an older Grafana: the SDK for Python has none of this one.
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert compose["services"]["grafana"]["image"].startswith(f"grafana/grafana:{GRAFANA}.")
    assert faults(BOARDS[name], f"grafana-{GRAFANA}.json") == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("stat", "options/colorMode", "loud"),
        ("stat", "options/textmode", "auto"),
        ("timeseries", "fieldConfig/defaults/custom/lineWidth", "thick"),
        ("timeseries", "options/legend/displayMode", "none"),
        ("heatmap", "options/yAxis/axisPlacement", 1),
        ("heatmap", "gridPos/w", "wide"),
        ("timeseries", "type", "graph"),
    ],
)
def test_a_panel_that_this_grafana_would_not_understand_is_found(kind: str, path: str, value: object) -> None:
    panels = [panel for board in BOARDS.values() for panel in board["panels"] if panel["type"] == kind]
    parents, _, last = path.rpartition("/")
    for panel in copy.deepcopy(panels):
        place = panel
        for name in filter(None, parents.split("/")):
            place = place.setdefault(name, {})
        place[last] = value
        assert faults({**BOARDS["health"], "panels": [panel]}, f"grafana-{GRAFANA}.json")


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_side_by_side_on_the_grid(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    numbers = [panel["id"] for panel in BOARDS[name]["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_how_to_read_it_and_asks_about_the_chosen_run(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 10
    assert panel["targets"]
    for target in panel["targets"]:
        selectors = re.findall(r"rapid_\w+(\{[^}]*\})?", target["expr"])
        assert selectors
        assert all('run="$run"' in selector for selector in selectors), target["expr"]


def named(expr: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"rapid_\w+", expr)}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_names_metrics_of_the_catalogue(panel: dict[str, Any]) -> None:
    assert {name for target in panel["targets"] for name in named(target["expr"])} <= set(METRICS)


def test_a_rule_names_metrics_of_the_catalogue_and_a_section_of_the_guide() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    anchors = {heading.strip().lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", guide, re.M)}
    for alert in {*ALERTS, *KUBERNETES_ALERTS}:
        assert named(alert.expr) <= set(METRICS), alert.name
        assert alert.runbook.partition("#")[2] in anchors, alert.name


def test_every_metric_is_on_a_dashboard_or_in_a_rule_or_is_left_out_on_purpose() -> None:
    asked = {name for board in BOARDS.values() for panel in board["panels"] for target in panel.get("targets", ())
             for name in named(target["expr"])}  # fmt: skip
    asked |= {name for alert in ALERTS for name in named(alert.expr)}
    left_out = {
        # The hub's counts of the same are shown.
        catalogue.ACTOR_GROUPS,
        catalogue.ACTOR_GROUPS_FAILED,
        catalogue.HUB_LEASES_GRANTED,
        # The rates of counters are shown, which Prometheus takes over a window of one's choice.
        catalogue.ACTOR_TOKEN_RATE,
        catalogue.LEARNER_GENERATED_RATE,
        catalogue.LEARNER_TRAINED_RATE,
        # Lengths of all completions are shown, those trained are among them.
        catalogue.LEARNER_COMPLETION_TOKENS,
        # Constant but for a restart, which the log tells of.
        catalogue.LEARNER_INCARNATION,
    }
    assert set(METRICS) - asked == {metric.name for metric in left_out}


def test_the_names_of_labels_are_those_of_the_metric() -> None:
    known = {"run", "process", "part", "le", "job"}
    for alert in {*ALERTS, *KUBERNETES_ALERTS}:
        for name, inside in re.findall(r"(rapid_\w+)\{([^}]*)\}", alert.expr):
            assert set(re.findall(r"(\w+)=", inside)) <= known | set(METRICS[name].labels), alert.name


def test_what_a_metric_does_not_have_is_not_asked_of_it() -> None:
    scope = Scope("", "5m")
    with pytest.raises(ValueError, match="is a gauge, expected a counter"):
        scope.rate(catalogue.ACTOR_BUSY)
    with pytest.raises(ValueError, match="expected a histogram"):
        scope.quantile(0.5, catalogue.HUB_TOKENS)
    assert scope.rate(catalogue.HUB_TOKENS, "run") == f"sum by (run) (rate({catalogue.HUB_TOKENS.name}[5m]))"
    assert {Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM} == {metric.kind for metric in METRICS.values()}


def test_the_scrape_configuration_reads_the_launchers_files_and_the_rules() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    rapid = next(job for job in config["scrape_configs"] if job["job_name"] == "rapid")
    assert rapid["file_sd_configs"][0]["files"] == ["../../runs/.targets/*.json"]
    assert config["rule_files"] == ["rules/*.yml"]


def test_provisioning_names_the_data_source_and_where_the_dashboards_lie() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["isDefault"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "rapid.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
