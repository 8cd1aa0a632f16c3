"""The pictures: held-out accuracy over time and over samples with bands, where the time went, accuracy over lag."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.table.arms import LAGS, STALE_LOSSES, stale_name
from bench.table.curves import Curve, mean_curve, smooth
from bench.table.summary import Row, Table
from bench.table.timing import KINDS
from telemetry.plots import _STYLE as STYLE
from telemetry.plots import BLUE, GREEN, GREY, ORANGE, RED

# Okabe and Ito's palette; what comes after eight arms repeats it with other dashes.
PALETTE = (GREY, BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#B8A000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
KIND_COLOURS = {"generate": ORANGE, "both": "#B8A000", "train": GREEN, "load": BLUE, "wait": "#D1D5DB"}
MAX_CURVES = 10
"""More lines in one picture cannot be told apart."""


def draw_all(tables: list[Table], folder: Path, window: int) -> list[Path]:
    """All pictures that the results allow, as PNG files in `folder`."""
    paths = []
    for table in tables:
        arms = [row.arm for row in table.rows if not row.arm.startswith("stale-")]
        for part, names in enumerate(_portions(arms, table.baseline)):
            mark = "" if part == 0 else f"-{part + 1}"
            for what, axis in (("time", "times_s"), ("samples", "samples")):
                draw = _curves(table, names, axis, window)
                paths.append(_save(folder / f"{table.task}-{what}{mark}.png", draw, (9.0, 5.0)))
        if arms:
            rows = [row for row in table.rows if row.arm in arms]
            paths.append(_save(folder / f"{table.task}-split.png", _split(table, rows), (9.0, 1.6 + 0.34 * len(rows))))
        if len(arms) < len(table.rows):
            paths.append(_save(folder / f"{table.task}-staleness.png", _staleness(table), (8.0, 4.8)))
    return paths


def _portions(arms: list[str], baseline: str) -> list[list[str]]:
    """Arms in pictures of at most MAX_CURVES, the baseline in each."""
    others = [arm for arm in arms if arm != baseline]
    head = [baseline] if baseline in arms else []
    size = MAX_CURVES - len(head)
    return [head + others[start : start + size] for start in range(0, max(len(others), 1), size)] if arms else []


def _save(path: Path, draw: Callable[[Any], None], size: tuple[float, float]) -> Path:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.png")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=144, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        figure.savefig(temporary)
    temporary.replace(path)
    return path


def band(curves: list[Curve], window: int) -> tuple[Curve, np.ndarray]:
    """The mean curve, and the standard error over seeds of their smoothed curves at each step; 0 for one seed."""
    middle, smoothed = mean_curve(curves), [smooth(curve, window) for curve in curves]
    values = np.array([[curve.accuracy[curve.steps.index(step)] for step in middle.steps] for curve in smoothed])
    if len(curves) < 2:
        return middle, np.zeros(len(middle.steps))
    return middle, values.std(axis=0, ddof=1) / np.sqrt(len(curves))


def _curves(table: Table, arms: list[str], axis: str, window: int) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for index, arm in enumerate(arms):
            middle, error = band(table.curves[arm], window)
            smoothed = smooth(middle, window)
            xs, ys = np.array(getattr(middle, axis)), np.array(smoothed.accuracy)
            colour, dashes = PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]
            axes.fill_between(xs, ys - error, ys + error, color=colour, alpha=0.13, linewidth=0)
            axes.plot(xs, ys, color=colour, linestyle=dashes, linewidth=2, label=arm)
            axes.plot(xs, middle.accuracy, ".", color=colour, markersize=4, alpha=0.55)
        if table.equal_accuracy is not None:
            axes.axhline(table.equal_accuracy, color=GREY, linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                f"A* = {table.equal_accuracy:.3f}",
                (1.0, table.equal_accuracy),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 4),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=GREY,
            )
        seeds = max(len(table.curves[arm]) for arm in arms)
        axes.set_title(f"{table.task}: held-out pass@1, {seeds} seed{'s' if seeds > 1 else ''}")
        axes.set_xlabel("training time, s" if axis == "times_s" else "completions trained on")
        axes.set_ylabel("pass@1")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return draw


def _split(table: Table, rows: list[Row]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        places = range(len(rows))
        left = np.zeros(len(rows))
        for kind in KINDS:
            widths = np.array([row.shares[kind] * row.time_of_samples_s.value for row in rows])
            axes.barh(places, widths, left=left, color=KIND_COLOURS[kind], label=kind, height=0.7)
            left += widths
        axes.set_yticks(places, [row.arm for row in rows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_title(f"{table.task}: time for {table.equal_samples:.0f} completions")
        axes.set_xlabel("s")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return draw


def _staleness(table: Table) -> Callable[[Any], None]:
    rows = {row.arm: row for row in table.rows}

    def draw(axes: Any) -> None:
        for index, loss in enumerate(STALE_LOSSES):
            lags = [lag for lag in LAGS if stale_name(loss, lag) in rows]
            if not lags:
                continue
            found = [rows[stale_name(loss, lag)].accuracy[1] for lag in lags]
            ys, errors = np.array([mean.value for mean in found]), np.array([mean.error or 0.0 for mean in found])
            places = [LAGS.index(lag) for lag in lags]
            colour = PALETTE[(index + 1) % len(PALETTE)]
            axes.fill_between(places, ys - errors, ys + errors, color=colour, alpha=0.13, linewidth=0)
            axes.plot(places, ys, "o-", color=colour, linewidth=2, markersize=4, label=loss)
        axes.set_xticks(range(len(LAGS)), [str(lag) for lag in LAGS])
        axes.set_title(f"{table.task}: held-out pass@1 at the end")
        axes.set_xlabel("lag, optimizer steps")
        axes.set_ylabel("pass@1")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return draw
