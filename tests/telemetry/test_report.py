from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from telemetry.catalogue import OPTIONAL_DIAGNOSTICS
from telemetry.errors import RunDirectoryError
from telemetry.record import KEYS
from telemetry.report import RunData, load_run, write_report
from telemetry.report.by_lag import lag_heatmap, lag_rows
from telemetry.report.charts import CHARTS
from telemetry.report.costs import compute_costs
from telemetry.report.lanes import WINDOW_S, lanes, time_shares
from telemetry.report.page import render_page
from telemetry.report.said import steps_said
from telemetry.report.series import columns
from telemetry.run_dir import RunDirectory
from telemetry.timeline import Span
from tests.telemetry.fakes import CONFIG, HOSTILE, fill, furnish, make_record, make_run, make_sample, make_status

EMPTY_TAGS = ("meta", "link", "input", "img")


class Page(HTMLParser):
    """Collects what a page would fetch or run, its text, and whether its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.data: dict[str, Any] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids.append(values.get("id") or "")
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]
        assert not [name for name in values if name.startswith("on")]
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"] and self.ids[-1] == "data":
            self.data = json.loads(data)
        elif self.open[-1:] not in (["script"], ["style"]):
            self.text += data


@pytest.fixture
def whole(run_dir: RunDirectory) -> RunData:
    """A run with everything that a run may leave."""
    return load_run(furnish(fill(run_dir, make_run(60))), make_status())


def test_a_report_stands_alone_and_says_what_the_run_did(whole: RunData, tmp_path: Path) -> None:
    write_report([whole], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.fetched == ["data:,"]
    for wanted in (
        "trial",
        "async · tiny · reasoning_gym",
        "2 of 2",
        "= 1,284 prompts opened",
        "core-hours",
        "0123456789ab+",
        "[schedule]",
    ):
        assert wanted in page.text
    sections = {"summary", "curves", "staleness", "timeline", "completions", "ledger", "costs", "environment"}
    assert sections | {"configuration"} <= set(page.ids)


def test_what_a_model_or_a_user_said_is_never_markup(whole: RunData) -> None:
    page = Page(render_page([whole]))
    assert "img" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert HOSTILE in page.text
    said = page.data["runs"][0]["said"][0]["groups"][0]
    assert (said["worst"]["tokens"][0], HOSTILE in said["prompt"]) == (HOSTILE, True)


def test_the_page_allows_no_request_whatever_is_in_it(whole: RunData) -> None:
    assert "default-src 'none'" in render_page([whole])


def test_runs_are_compared_by_figures_and_by_what_differs(whole: RunData) -> None:
    other = RunData("other", {**CONFIG, "schedule": {"mode": "sync", "max_staleness": 0}}, make_run(30, seed=1))
    page = Page(render_page([whole, other]))
    assert "2 runs compared" in page.text
    assert [run["name"] for run in page.data["runs"]] == ["trial", "other"]
    before, _, after = page.text.partition("differs")
    assert before
    assert "schedule.mode" in after
    assert "schedule.max_staleness" in after
    assert "model.path" not in after.partition("[model]")[0]


def test_a_run_that_left_little_has_a_short_report(run_dir: RunDirectory) -> None:
    page = Page(render_page([load_run(fill(run_dir, []))]))
    assert "No optimizer step was completed" in page.text
    assert not {"staleness", "timeline", "completions", "ledger", "costs", "environment"} & set(page.ids)
    bare = Page(render_page([load_run(fill(RunDirectory.create(run_dir.path.parent / "bare"), [make_record(1)]))]))
    assert "curves" in bare.ids


def test_damaged_files_that_only_explain_a_run_do_not_hinder_its_report(run_dir: RunDirectory) -> None:
    furnish(fill(run_dir, make_run(3)))
    run_dir.environment_path.write_text("{")
    for path in (run_dir.samples_path, run_dir.timeline / "actor-0.jsonl"):
        path.write_bytes(
            b'\xff\xfe no json\n[1]\n{"t": NaN}\n{"t": 1e999, "what": "train"}\n' + path.read_bytes() + b'{"t": 1'
        )
    run = load_run(run_dir)
    assert (len(run.samples), run.environment) == (6, {})
    render_page([run])
    assert list(run.timeline) == ["learner-0", "actor-0", "actor-1"]


def test_a_report_needs_the_configuration(run_dir: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match=r"config\.json is missing"):
        load_run(run_dir)


def test_every_curve_is_of_a_key_that_records_have() -> None:
    known = {key.name for key in KEYS}
    keys = {line.key for chart in CHARTS for line in chart.lines}
    assert keys - known == {f"diagnostics.{name}" for name in OPTIONAL_DIAGNOSTICS}
    assert known - keys <= {"step", "incarnation", "wall_s", "tokens_trained", "eval"}


def test_many_records_are_thinned_to_means_and_nulls_stay() -> None:
    records = [make_record(step, wall_s=float(step), loss=None if step <= 2 else 3.0) for step in range(1, 9)]
    thinned = columns(records, max_points=4)
    assert thinned["step"] == [1.5, 3.5, 5.5, 7.5]
    assert thinned["loss"] == [None, 3.0, 3.0, 3.0]
    assert thinned["diagnostics.entropy"] == [None] * 4


# --- lag --------------------------------------------------------------------------------------------


def by_lag(step: int, **lags: dict[str, float | None]) -> dict[str, object]:
    """A record with these diagnostics, `l0` for lag 0."""
    return make_record(step, diagnostics={"by_lag": {name[1:]: values for name, values in lags.items()}})


def test_diagnostics_by_lag_are_weighed_by_tokens() -> None:
    # Lag 0: (100·1.0 + 300·2.0) / 400 = 1.75; lag 1 is a fifth of the 500 tokens, its ratio known in one step alone.
    rows = lag_rows(
        [
            by_lag(1, l0={"tokens": 100, "ratio_mean": 1.0}, l1={"tokens": 50, "ratio_mean": None}),
            by_lag(2, l0={"tokens": 300, "ratio_mean": 2.0}, l1={"tokens": 50, "ratio_mean": 1.5}),
        ]
    )
    assert [(row["lag"], row["ratio_mean"], row["share"]) for row in rows] == [(0, 1.75, 0.8), (1, 1.5, 0.2)]


def test_the_heatmap_shares_out_the_tokens_of_each_stretch() -> None:
    records = [by_lag(1, l0={"tokens": 10}), by_lag(2, l0={"tokens": 10}, l2={"tokens": 20}), make_record(3)]
    assert lag_heatmap(records, bound=1, max_columns=1) == {
        "bound": 1,
        "columns": [[1, 2]],
        "shares": [[0.5, 0.0, 0.5]],
    }
    assert lag_heatmap([make_record(1)], bound=2) is None


# --- timeline, completions, costs -------------------------------------------------------------------


def test_lanes_show_the_first_and_the_last_minutes() -> None:
    spans = [Span(100.0 + 10 * i, 110.0 + 10 * i, "train" if i % 2 else "wait", str(i)) for i in range(100)]
    found = lanes({"learner-0": spans})
    assert found is not None
    assert [(window["start"], window["end"]) for window in found["windows"]] == [(0, WINDOW_S), (1000 - WINDOW_S, 1000)]
    first, last = (window["processes"][0]["spans"] for window in found["windows"])
    assert (first[0], first[-1]) == ([0.0, 10.0, "wait", "0"], [170.0, 180.0, "train", "17"])
    assert last[-1] == [990.0, 1000.0, "train", "99"]
    short = lanes({"learner-0": spans[:5]})
    assert short is not None
    assert len(short["windows"]) == 1
    assert lanes({}) is None
    assert time_shares(spans) == {"train": 0.5, "wait": 0.5}


def test_spans_too_short_to_be_seen_are_merged() -> None:
    spans = [Span(0.01 * i, 0.01 * (i + 1), "train" if i % 2 else "wait") for i in range(18_000)]
    found = lanes({"learner-0": spans})
    assert found is not None
    shown = found["windows"][0]["processes"][0]["spans"]
    assert len(shown) <= 2600
    assert (shown[0][0], shown[-1][1]) == (0.0, 180.0)


def test_too_many_samples_are_thinned_from_the_first_to_the_last() -> None:
    samples = [make_sample(step, 0) for step in range(1, 101)]
    assert [step["step"] for step in steps_said(samples, max_steps=4)] == [1, 34, 67, 100]
    assert len(steps_said(samples, max_tokens=80)) == 10
    assert [len(step["groups"]) for step in steps_said([make_sample(1, 0), make_sample(1, 1)])] == [2]


def test_costs_count_the_actors_of_each_step_and_no_core_twice() -> None:
    # Two steps of 1800 s: learner 1 core, an actor 2 of them, 1 and then 3 actors, on a machine of 4 cores:
    # (1 + 2) · 0.5 h + min(1 + 6, 4) · 0.5 h = 3.5 core-hours; on a cluster (1 + 2 + 1 + 6) · 0.5 h = 5.
    records = [
        make_record(1, wall_s=1800.0, actors=1, generated_tokens_per_s=10.0),
        make_record(2, wall_s=3600.0, actors=3, generated_tokens_per_s=20.0),
    ]
    parts = {"learner": {"cores": 1, "gpus": 0.5}, "actor": {"cores": 2, "gpus": 0.25}}
    costs = compute_costs(records, {"parts": parts, "cores": 4, "on_cluster": False})
    # GPUs: (0.5 + 0.25) · 0.5 h + (0.5 + 0.75) · 0.5 h = 1
    assert (costs.core_hours, costs.gpu_hours, costs.tokens_generated) == (3.5, 1.0, 54_000)
    assert costs.per_reward(costs.core_hours) is None  # nothing was gained
    assert compute_costs(records, {"parts": parts, "cores": 4, "on_cluster": True}).core_hours == 5.0
    assert compute_costs(records, {}).core_hours is None


def test_the_cost_of_reward_is_what_a_tenth_more_took() -> None:
    records = [make_record(step, wall_s=3600.0 * step, reward_mean=0.1 if step <= 5 else 0.5) for step in range(1, 11)]
    costs = compute_costs(records, {})
    assert costs.reward_gain == pytest.approx(0.4)
    assert costs.per_reward(8.0) == pytest.approx(2.0)
