from __future__ import annotations

import math
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest

from telemetry.errors import RunDirectoryError
from telemetry.plots import write_plots
from telemetry.report import lag_rows, write_report
from telemetry.run_dir import RunDirectory
from tests.telemetry.fakes import make_record, make_run, make_status

CONFIG = {
    "model": {"path": "tiny"},
    "task": {"name": "reasoning_gym", "prompt": "<script>alert(1)</script>"},
    "schedule": {"mode": "async", "max_staleness": 2},
}
PLOTS = ["lag", "ratio_ess", "reward", "throughput"]


class Page(HTMLParser):
    """Collects what a page would fetch or run, its text, and whether its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def fill(run_dir: RunDirectory, records: list[dict[str, object]]) -> RunDirectory:
    run_dir.write_config(CONFIG)
    for record in records:
        run_dir.append_metrics(record)
    return run_dir


def test_pictures_are_drawn_from_the_first_step_on(run_dir: RunDirectory) -> None:
    paths = write_plots(fill(run_dir, make_run(1)), max_staleness=2)
    assert sorted(path.stem for path in paths) == PLOTS
    assert sorted(path.stem for path in run_dir.plots.iterdir()) == PLOTS
    assert all(png_size(path)[0] > 1000 for path in paths)


def test_pictures_bear_nulls_resumes_and_steps_that_took_no_time(run_dir: RunDirectory) -> None:
    nulls = dict.fromkeys(("reward_mean", "ratio_mean", "ess_fraction", "clipped_fraction", "lag_mean"), math.nan)
    records = [make_record(1, wall_s=0.0, **nulls), make_record(2, wall_s=0.0)]
    fill(run_dir, [*records, make_record(2, incarnation=2, wall_s=1.0, eval={"pass@1": 0.5}, ratio_mean=math.nan)])
    assert len(write_plots(run_dir, max_staleness=0)) == 4


def test_a_run_without_a_step_has_no_pictures_but_a_report(run_dir: RunDirectory) -> None:
    fill(run_dir, [])
    assert write_plots(run_dir, max_staleness=2) == []
    assert "No optimizer step was completed" in Page(write_report(run_dir).read_text()).text


def test_a_report_stands_alone_and_says_what_the_run_did(run_dir: RunDirectory) -> None:
    path = write_report(fill(run_dir, make_run(60)), make_status())
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert "script" not in page.tags
    assert len(page.links) == 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    for wanted in (
        "trial",
        "async · tiny · reasoning_gym",
        "2 of 2",
        "= 1,284 prompts opened",
        "<script>alert(1)",
        "By lag",
    ):
        assert wanted in page.text


def test_a_report_needs_the_configuration(run_dir: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match=r"config\.json is missing"):
        write_report(run_dir)


def test_diagnostics_by_lag_are_weighed_by_tokens() -> None:
    # Lag 0: (100·1.0 + 300·2.0) / 400 = 1.75; lag 1 is a fifth of the 500 tokens, its ratio known in one step alone.
    def record(step: int, **lags: dict[str, float | None]) -> dict[str, object]:
        return make_record(step, diagnostics={"by_lag": {name[1:]: values for name, values in lags.items()}})

    rows = lag_rows(
        [
            record(1, l0={"tokens": 100, "ratio_mean": 1.0}, l1={"tokens": 50, "ratio_mean": None}),
            record(2, l0={"tokens": 300, "ratio_mean": 2.0}, l1={"tokens": 50, "ratio_mean": 1.5}),
        ]
    )
    assert [(row["lag"], row["ratio_mean"], row["share"]) for row in rows] == [("0", 1.75, 0.8), ("1", 1.5, 0.2)]
