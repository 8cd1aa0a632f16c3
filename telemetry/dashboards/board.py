"""A dashboard: rows of panels, the run that they are about, and links to its siblings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    IntervalVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from telemetry import catalogue
from telemetry.dashboards.panels import SOURCE, Panel
from telemetry.dashboards.promql import Scope

RUN = Scope('run="$run"', "$window")
"""What every panel is about: the run chosen above, rates over the window chosen above."""
TAG = "rapid"
_WINDOWS = "1m,5m,15m,1h"
_WINDOW = "5m"


def board(uid: str, title: str, description: str, rows: Mapping[str, Sequence[Panel]]) -> Dashboard:
    """A dashboard of these rows, by heading."""
    built = Dashboard(f"Rapid: {title}").uid(uid).description(description).tags([TAG]).editable()
    built = built.time("now-1h", "now").refresh("10s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    links = DashboardLink("Rapid").type(DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True)
    built = built.link(links.include_vars(True).keep_time(True))
    for variable in _variables():
        built = built.with_variable(variable)
    number = 0
    for heading, panels in rows.items():
        number += 1
        built = built.with_row(Row(heading).id(number))
        for panel in panels:
            number += 1
            built = built.with_panel(panel.id(number))
    return built


def _variables() -> list[Any]:
    runs = f"label_values({catalogue.HUB_VERSION.name}, run)"
    query = {"query": runs, "refId": "runs"}
    window = VariableOption(selected=True, text=_WINDOW, value=_WINDOW)
    return [
        DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        QueryVariable("run")
        .label("Run")
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_DESC)
        .description("Runs whose hub was scraped in the time shown."),
        IntervalVariable("window")
        .label("Rates over")
        .values(_WINDOWS)
        .current(window)
        .description("At least a few optimizer steps, or the figures that steps leave come in bursts."),
    ]


def to_json(built: Dashboard) -> str:
    """The file that Grafana reads."""
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
