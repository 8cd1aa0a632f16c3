"""The page: its sections in their order, its style, its scripts and the data that they draw."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from telemetry.advisor import advise, most_full, rate_at_last
from telemetry.report import tables
from telemetry.report.by_lag import lag_heatmap, lag_rows
from telemetry.report.charts import CHARTS
from telemetry.report.evaluations import evaluation_data, evaluations
from telemetry.report.html import Html, join, json_script, section, tag, text
from telemetry.report.lanes import lanes
from telemetry.report.run_data import RunData
from telemetry.report.said import steps_said
from telemetry.report.series import columns
from telemetry.run_dir import write_atomically

Runs = Sequence[RunData]

_TITLE = re.compile(r'<section id="(\w+)"><h2>(.*?)</h2>')
_SCRIPTS = ("base.js", "curves.js", "evaluations.js", "staleness.js", "lanes.js", "completions.js", "main.js")
# Nothing may be fetched, sent or framed, whatever a completion says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def write_report(runs: Runs, path: Path) -> None:
    """Write the page of one run, or of several beside each other."""
    write_atomically(path, render_page(runs))


def render_page(runs: Runs) -> str:
    """The page as text. Raises ValueError for no runs."""
    if not runs:
        raise ValueError("a report of no runs: expected at least one")
    title = " · ".join(run.name for run in runs)
    head = [
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><link rel="icon" href="data:,">'),
        tag("title", text(f"{title} – Rapid")),
        tag("style", _asset("page.css")),
    ]
    sections = [build(runs) for build in SECTIONS]
    body = [
        _header(sections),
        tag("main", *sections),
        tag("footer", text(f"Written by Rapid on {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}.")),
        json_script("data", _data(runs)),
        *(tag("script", _asset(name)) for name in _SCRIPTS),
    ]
    return f'<!doctype html>\n<html lang="en"><head>{join(head)}</head>\n<body>\n{join(body)}\n</body></html>\n'


def _asset(name: str) -> Html:
    return Html(resources.files("telemetry.report").joinpath("assets", name).read_text(encoding="utf-8"))


def _data(runs: Runs) -> dict[str, Any]:
    return {
        "charts": [asdict(chart) for chart in CHARTS],
        "runs": [
            {
                "name": run.name,
                "bound": run.bound,
                "columns": columns(run.records),
                "evaluations": evaluation_data(run),
                "heatmap": lag_heatmap(run.records, run.bound),
                "byLag": lag_rows(run.records),
                "lanes": lanes(run.timeline),
                "said": steps_said(run.samples),
            }
            for run in runs
        ],
    }


# --- sections ---------------------------------------------------------------------------------------


def _header(sections: Sequence[Html]) -> Html:
    titles = [match for part in sections if (match := _TITLE.match(part))]
    links = [tag("a", Html(title[2]), href=f"#{title[1]}") for title in titles]
    theme = tag("button", text("◐"), id="theme", type="button", title="Light or dark", aria_label="Light or dark")
    return tag("header", tag("a", text("rapid"), href="#summary", class_="brand"), tag("nav", *links), theme)


def _summary(runs: Runs) -> Html:
    if len(runs) == 1:
        run = runs[0]
        content = join([tables.title(run), tables.cards(run)])
    else:
        content = join([tables.comparison_title(runs), tables.figure_table(runs)])
    return tag("section", content, tables.noscript(), id="summary")


def _curves(runs: Runs) -> Html:
    if not any(run.records for run in runs):
        return section("curves", "Curves", tag("p", text("No optimizer step was completed."), class_="empty"))
    controls = Html(
        '<div class="controls" id="curve-controls">'
        '<label>Smoothing <input type="range" id="smoothing" min="1" max="50" value="5">'
        '<output id="smoothing-value"></output></label>'
        '<span class="switch" role="group" aria-label="Horizontal axis">'
        '<button type="button" data-axis="step" aria-pressed="true">steps</button>'
        '<button type="button" data-axis="time" aria-pressed="false">time</button></span></div>'
    )
    figures = Html('<div class="charts" id="charts"></div>')
    return section(
        "curves", "Curves", join([controls, figures]), "Thin lines are single steps, thick ones trailing means."
    )


def _staleness(runs: Runs) -> Html:
    if not any(lag_rows(run.records) for run in runs):
        return Html("")
    pictures = Html('<div id="heatmaps"></div><div class="charts small" id="by-lag"></div>')
    return section("staleness", "Staleness", join([pictures, tables.lag_table(runs)]), _STALENESS_NOTE)


_STALENESS_NOTE = (
    "How old the tokens were that each step trained on, and what that did to their importance weights: the older, the "
    "further from 1 the ratios, the fewer effective samples, the more clipped."
)


def _timeline(runs: Runs) -> Html:
    if not any(run.timeline for run in runs):
        return Html("")
    content = join([Html('<div id="lanes"></div>'), tables.share_table(runs)])
    return section("timeline", "Timeline", content, "What each process did, in the first and in the last minutes.")


def _completions(runs: Runs) -> Html:
    if not any(run.samples for run in runs):
        return Html("")
    note = (
        "Groups that a step was trained on: the best and the worst of their completions, each token coloured by the "
        "lag of the policy that drew it. Arrow keys go from step to step."
    )
    return section("completions", "Completions", Html('<div id="browser" tabindex="0"></div>'), note)


def _advice(runs: Runs) -> Html:
    found = []
    for run in runs:
        schedule, rate = run.config["schedule"], rate_at_last(run.records, run.timeline)
        limit = most_full(run.bound, run.config["learner"]["batch_groups"], run.config["actors"]["concurrent_groups"])
        advice = advise(run.records, rate, str(schedule["mode"]), limit)
        of_run = f"{run.name}: " if len(runs) > 1 else ""
        found.append(tag("p", text(f"{of_run}{advice.text}.")))
    note = "How many the rates of the last steps call for, so that the learner waits for a tenth of its time at most."
    return section("advice", "Actors", join(found), note)


SECTIONS: tuple[Callable[[Runs], Html], ...] = (
    _summary,
    _curves,
    evaluations,
    _staleness,
    _timeline,
    _advice,
    _completions,
    tables.ledger,
    tables.costs,
    tables.environment,
    tables.configuration,
)
"""In the order of the page; a section that has nothing to say is empty."""
