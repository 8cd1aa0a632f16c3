from __future__ import annotations

import math
import struct
from pathlib import Path

from telemetry.plots import write_plots
from telemetry.run_dir import RunDirectory
from tests.telemetry.fakes import fill, make_record, make_run

PLOTS = ["by_lag", "lag", "ratio_ess", "reward", "throughput"]


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


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


def test_a_lag_whose_completions_count_under_another_leaves_a_gap(run_dir: RunDirectory) -> None:
    lags = {"0": {"tokens": 5, "kl_behaviour": 0.1, "ratio_mean": None}, "3": {"tokens": 9, "ratio_mean": 1.1}}
    paths = write_plots(fill(run_dir, [make_record(1, diagnostics={"by_lag": lags})]), max_staleness=3)
    assert "by_lag" in [path.stem for path in paths]


def test_the_cosine_is_drawn_where_it_was_measured(run_dir: RunDirectory) -> None:
    records = [make_record(1, diagnostics={"gradient_cosine": 0.4}), make_record(2, diagnostics={})]
    paths = write_plots(fill(run_dir, [*records, make_record(3)]), max_staleness=2)
    assert "gradient_cosine" in [path.stem for path in paths]


def test_a_run_without_a_step_has_no_pictures(run_dir: RunDirectory) -> None:
    assert write_plots(fill(run_dir, []), max_staleness=2) == []
