"""Panels of Grafana's, with the settings that all of ours share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, DynamicConfigValue, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = timeseries.Panel | stat.Panel | heatmap.Panel

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BOUND = "bound"
"""Legend of a line that nothing must cross: drawn red and dashed."""
_WIDTH, _HEIGHT = 8, 8
_GREEN, _AMBER, _RED = "green", "orange", "red"


@dataclass(frozen=True)
class Query:
    """What a panel asks, and what it calls the answer."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Levels:
    """Where a panel's colour changes. With `amber` above `red`, low values are the bad ones."""

    amber: float
    red: float

    def build(self) -> ThresholdsConfig:
        """As Grafana wants them: from the lowest upwards."""
        if self.amber <= self.red:
            steps = [Threshold(None, _GREEN), Threshold(self.amber, _AMBER), Threshold(self.red, _RED)]
        else:
            steps = [Threshold(None, _RED), Threshold(self.red, _AMBER), Threshold(self.amber, _GREEN)]
        return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def curves(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    stacked: bool = False,
    limit: float | None = None,
    low: float | None = 0.0,
    high: float | None = None,
    width: int = _WIDTH,
) -> timeseries.Panel:
    """Lines over time. `limit` draws a line at which concern begins; `low` and `high` fix the axis."""
    panel = timeseries.Panel().title(title).description(description).datasource(SOURCE).unit(unit)
    panel = panel.span(width).height(_HEIGHT).show_points(VisibilityMode.AUTO).line_width(1).span_nulls(True)
    panel = panel.fill_opacity(40 if stacked else 5)
    panel = panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
    panel = panel.legend(legend.placement(LegendPlacement.BOTTOM))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if limit is not None:
        steps = [Threshold(None, "transparent"), Threshold(limit, _RED)]
        panel = panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    if any(query.legend == BOUND for query in queries):
        panel = panel.override_by_name(BOUND, _bound_style())
    return panel.targets([_target(query, place) for place, query in enumerate(queries)])


def _bound_style() -> list[DynamicConfigValue]:
    return [
        DynamicConfigValue("color", {"mode": "fixed", "fixedColor": _RED}),
        DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
        DynamicConfigValue("custom.lineWidth", 2),
        DynamicConfigValue("custom.fillOpacity", 0),
        DynamicConfigValue("custom.stacking", {"mode": "none", "group": "A"}),
    ]


def figure(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "short",
    decimals: int | None = None,
    levels: Levels | None = None,
    width: int = 4,
) -> stat.Panel:
    """The newest value, large, over a sparkline."""
    panel = stat.Panel().title(title).description(description).datasource(SOURCE).unit(unit)
    panel = panel.span(width).height(4).graph_mode(BigValueGraphMode.AREA)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if decimals is not None:
        panel = panel.decimals(decimals)
    panel = panel.color_mode(BigValueColorMode.NONE if levels is None else BigValueColorMode.BACKGROUND)
    if levels is not None:
        panel = panel.thresholds(levels.build())
    return panel.targets([_target(query, 0)])


def density(title: str, description: str, query: Query, *, axis: str, width: int = _WIDTH) -> heatmap.Panel:
    """A histogram over time; the query gives its buckets."""
    panel = heatmap.Panel().title(title).description(description).datasource(SOURCE).span(width).height(_HEIGHT)
    color = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").reverse(False).steps(64)
    panel = panel.calculate(False).color(color.fill("dark-blue").exponent(0.5))
    panel = panel.y_axis(heatmap.YAxisConfig().axis_label(axis).decimals(0)).cell_gap(1).show_legend()
    return panel.targets([_target(query, 0).format(PromQueryFormat.HEATMAP)])


def _target(query: Query, place: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").range()
    return target.ref_id(chr(ord("A") + place)).datasource(SOURCE)
