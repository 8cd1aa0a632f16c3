"""The pictures of a run: reward, lag, throughput, and how far off-policy it trained, over time and by lag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from telemetry.curve import nice_limits, smooth
from telemetry.evaluations import Evaluation, read_evaluations
from telemetry.record import DIAGNOSTICS, Record, elapsed_s
from telemetry.report.by_lag import lag_rows
from telemetry.run_dir import RunDirectory
from telemetry.summary import WINDOW, compute_figures, format_number

# One colour means one thing in every picture (Okabe and Ito's palette, which colour-blind readers can tell apart).
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B7280"
_INK = "#1F2937"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": "#9CA3AF",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 14,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

Axes = Any
Series = Sequence[float | None]


def write_plots(run_dir: RunDirectory, *, max_staleness: int) -> list[Path]:
    """Draw the run's pictures into its `plots/`.

    Args:
        run_dir: the run's folder.
        max_staleness: the bound η that the lag is drawn against, in optimizer steps.

    Returns:
        Paths of the PNG files; empty for a run without a step.
    """
    records = run_dir.read_metrics()
    if not records:
        return []
    evaluations = read_evaluations(run_dir.path)
    drawings: dict[str, Callable[[Any, list[Record]], None]] = {
        "reward": partial(_draw_reward, evaluations=evaluations),
        "lag": partial(_draw_lag, bound=max_staleness),
        "throughput": _draw_throughput,
        "ratio_ess": _draw_off_policy,
    }
    if lag_rows(records):
        drawings["by_lag"] = _draw_by_lag
    if any(value is not None for value in _cosines(records)):
        drawings["gradient_cosine"] = _draw_gradient_cosine
    if evaluations:
        drawings["evaluation"] = partial(_draw_evaluations, evaluations=evaluations)
    run_dir.plots.mkdir(exist_ok=True)
    return [_draw(run_dir, name, draw, records) for name, draw in drawings.items()]


def _draw(run_dir: RunDirectory, name: str, draw: Callable[[Any, list[Record]], None], records: list[Record]) -> Path:
    # Imported here: it takes a second, and only this function needs it. A Figure without pyplot keeps no global state.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    path = run_dir.plots / f"{name}.png"
    temporary = path.with_name(f".{name}.tmp.png")
    with matplotlib.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        figure = Figure(figsize=(8.6, 4.2), dpi=144, layout=layout)
        FigureCanvasAgg(figure)
        draw(figure, records)
        figure.text(0.985, 0.975, run_dir.name, ha="right", va="top", fontsize=8, color=GREY)
        figure.savefig(temporary)
    temporary.replace(path)
    return path


def _draw_reward(figure: Any, records: list[Record], *, evaluations: Sequence[Evaluation]) -> None:
    axes = figure.subplots()
    steps, rewards = _series(records, "reward_mean")
    means = smooth(rewards, WINDOW)
    axes.plot(steps, _gaps(rewards), color=BLUE, alpha=0.3, linewidth=1.2, marker=".", markersize=4, label="each step")
    axes.plot(steps, _gaps(means), color=BLUE, linewidth=2.4, label=f"mean of {WINDOW} steps")
    evaluated = [(one["step"], one["mean_reward"]) for one in evaluations if one["mean_reward"] is not None]
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), "D", color=ORANGE, markersize=6, label="held-out prompts")
    if means[-1] is not None:
        axes.annotate(
            format_number(means[-1]),
            (steps[-1], means[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=BLUE,
            fontweight="bold",
        )
    axes.set_title("Reward")
    axes.set_ylabel("mean reward")
    low, high = nice_limits(rewards)
    axes.set_ylim(low, high + 0.12 * (high - low))
    axes.legend(loc="upper left", ncols=3)
    _finish(axes, records)


def _draw_evaluations(figure: Any, records: list[Record], *, evaluations: Sequence[Evaluation]) -> None:
    axes = figure.subplots()
    for k, colour in zip(_ks_shown(evaluations), (BLUE, GREEN, ORANGE, RED), strict=False):
        found = [(one["step"], one["pass_at"][k]) for one in evaluations if k in one["pass_at"]]
        steps, estimates = [step for step, _ in found], [estimate for _, estimate in found]
        low, high = [one["low"] for one in estimates], [one["high"] for one in estimates]
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        means = [one["mean"] for one in estimates]
        axes.plot(steps, means, color=colour, linewidth=2.2, marker="o", markersize=4, label=f"pass@{k}")
    axes.set_title("Held-out prompts, with 95 % intervals")
    axes.set_ylabel("share solved")
    axes.set_ylim(0, 1.12)
    axes.legend(loc="upper left", ncols=4)
    _finish(axes, records)
    axes.set_xlim(left=min(evaluations[0]["step"], records[0]["step"]) - 0.5)


def _ks_shown(evaluations: Sequence[Evaluation]) -> list[str]:
    """Values of k of the newest evaluation, rising; at most four are told apart."""
    return sorted(evaluations[-1]["pass_at"], key=int)[:4]


def _draw_lag(figure: Any, records: list[Record], *, bound: int) -> None:
    axes = figure.subplots()
    steps, means = _series(records, "lag_mean")
    _, largest = _series(records, "lag_max")
    axes.fill_between(
        steps, _gaps(largest), step="mid", color=BLUE, alpha=0.18, linewidth=0, label="largest of a token"
    )
    axes.plot(steps, _gaps(means), color=BLUE, alpha=0.35, linewidth=1)
    axes.plot(steps, _gaps(smooth(means)), color=BLUE, linewidth=2.2, label="mean of all tokens")
    axes.axhline(bound, color=RED, linewidth=1.6, linestyle=(0, (5, 3)), label=f"bound: {bound}")
    axes.set_title("Lag of the trained tokens")
    axes.set_ylabel("optimizer steps")
    axes.set_ylim(0, max([bound, *(value or 0 for value in largest)]) * 1.3 + 0.2)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper left", ncols=3)
    _finish(axes, records)


def _draw_throughput(figure: Any, records: list[Record]) -> None:
    rates, times = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figures = compute_figures(records)
    for key, colour, label in (
        ("generated_tokens_per_s", ORANGE, "generated by the actors"),
        ("trained_tokens_per_s", GREEN, "trained by the learner"),
    ):
        steps, values = _series(records, key)
        rates.plot(steps, _gaps(values), color=colour, alpha=0.25, linewidth=1)
        mean = format_number(getattr(figures, key), 0)
        rates.plot(steps, _gaps(smooth(values)), color=colour, linewidth=2, label=f"{label}, {mean}")
    rates.set_title("Throughput")
    rates.set_ylabel("tokens/s")
    rates.set_ylim(bottom=0)
    rates.legend(loc="lower right", ncols=2)
    _draw_times(times, records)
    _finish(times, records, clock_on=rates)


def _draw_times(axes: Axes, records: list[Record]) -> None:
    steps = [record["step"] for record in records]
    parts = [[record[key] or 0.0 for record in records] for key in ("train_s", "publish_s", "wait_s")]
    axes.stackplot(
        steps,
        *parts,
        step="mid",
        colors=(GREEN, BLUE, "#D1D5DB"),
        labels=("trains", "publishes", "waits for a batch"),
        linewidth=0,
        alpha=0.85,
    )
    axes.set_ylabel("learner, s a step")
    axes.set_ylim(0, max(sum(column) for column in zip(*parts, strict=True)) * 1.35 or 1.0)
    axes.legend(loc="upper left", ncols=3)


def _draw_off_policy(figure: Any, records: list[Record]) -> None:
    ratio, shares = figure.subplots(2, 1, sharex=True)
    steps, values = _series(records, "ratio_mean")
    ratio.axhline(1.0, color=GREY, linewidth=1, linestyle=(0, (2, 2)))
    ratio.plot(steps, _gaps(values), color=BLUE, alpha=0.3, linewidth=1)
    ratio.plot(steps, _gaps(smooth(values)), color=BLUE, linewidth=2, label="mean importance weight, before the clip")
    ratio.set_title("How far off-policy")
    ratio.set_ylabel("π / μ")
    known = [abs(value - 1.0) for value in values if value is not None]
    reach = max([0.1, *known]) * 1.4
    ratio.set_ylim(1 - reach, 1 + reach)
    ratio.legend(loc="upper left")
    for key, colour, label in (
        ("ess_fraction", GREEN, "effective sample size"),
        ("clipped_fraction", RED, "weights clipped"),
    ):
        steps, values = _series(records, key)
        shares.plot(steps, [100 * value for value in _gaps(values)], color=colour, alpha=0.25, linewidth=1)
        shares.plot(steps, [100 * value for value in _gaps(smooth(values))], color=colour, linewidth=2, label=label)
    shares.set_ylabel("% of the batch")
    shares.set_ylim(-2, 104)
    shares.legend(loc="center left", ncols=2)
    _finish(shares, records, clock_on=ratio)


def _draw_by_lag(figure: Any, records: list[Record]) -> None:
    """Means over the run, each step weighed by its tokens of the lag."""
    ratio, shares, divergence = figure.subplots(1, 3)
    rows = lag_rows(records)
    lags = [row["lag"] for row in rows]

    def values(key: str, scale: float = 1.0) -> list[float]:
        return [scale * value for value in _gaps([row[key] for row in rows])]

    ratio.axhline(1.0, color=GREY, linewidth=1, linestyle=(0, (2, 2)))
    ratio.vlines(lags, values("ratio_p05"), values("ratio_p95"), color=BLUE, alpha=0.35, linewidth=6, label="5 to 95 %")
    ratio.plot(lags, values("ratio_mean"), color=BLUE, marker="o", markersize=4, linewidth=1.6, label="mean")
    ratio.plot(lags, values("ratio_p50"), color=BLUE, marker="_", markersize=10, linewidth=0, label="median")
    ratio.set_title("By lag")
    ratio.set_ylabel("π / μ, before the clip")
    ratio.margins(y=0.18)
    for key, colour, label in (
        ("ess_fraction", GREEN, "effective sample"),
        ("clipped_fraction", RED, "clipped or masked"),
    ):
        shares.plot(lags, values(key, 100), color=colour, marker="o", markersize=4, linewidth=1.6, label=label)
    shares.set_ylabel("%")
    shares.set_ylim(-4, 128)
    shares.set_yticks(range(0, 101, 20))
    divergence.plot(
        lags, values("kl_behaviour"), color=ORANGE, marker="o", markersize=4, linewidth=1.6, label="KL(μ‖π)"
    )
    divergence.set_ylabel("nats a token")
    divergence.set_ylim(bottom=0)
    for axes in (ratio, shares, divergence):
        axes.set_xlabel("lag, optimizer steps")
        axes.set_xlim(min(lags) - 0.5, max(lags) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper left", fontsize=8)


def _draw_gradient_cosine(figure: Any, records: list[Record]) -> None:
    axes = figure.subplots()
    axes.axhline(0.0, color=GREY, linewidth=1, linestyle=(0, (2, 2)))
    found = [
        (record["step"], value) for record, value in zip(records, _cosines(records), strict=True) if value is not None
    ]
    axes.plot(*zip(*found, strict=True), color=BLUE, marker="o", markersize=4, linewidth=1.6)
    axes.set_title("Gradients of a batch's fresher and staler half")
    axes.set_ylabel("cosine")
    axes.set_ylim(-1.08, 1.08)
    _finish(axes, records)


def _cosines(records: list[Record]) -> list[float | None]:
    return [(record.get(DIAGNOSTICS) or {}).get("gradient_cosine") for record in records]


def _finish(axes: Axes, records: list[Record], clock_on: Axes | None = None) -> None:
    """Label the steps below, and put the working time above the topmost axes."""
    first, last = records[0]["step"], records[-1]["step"]
    axes.set_xlabel("optimizer step")
    axes.set_xlim(first - 0.5, last + 0.5 + 0.04 * (last - first))
    axes.xaxis.get_major_locator().set_params(integer=True)
    top = clock_on if clock_on is not None else axes
    clock = top.secondary_xaxis("top")
    steps, times = [0, *(record["step"] for record in records)], [0.0, *elapsed_s(records)]
    marks = [mark for mark in _round_times(times[-1]) if mark >= times[1]]
    clock.set_xticks([_step_at(mark, steps, times) for mark in marks], [_clock(mark) for mark in marks])
    clock.tick_params(length=0, labelsize=8, pad=1)
    clock.spines["top"].set_visible(False)


def _round_times(last_s: float) -> list[float]:
    """Up to seven round moments of a run of so many seconds."""
    strides = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000, 36000)
    stride = next((one for one in strides if last_s / one <= 7), 86400)
    return [float(stride * i) for i in range(1, int(last_s / stride) + 1)]


def _step_at(mark_s: float, steps: list[int], times: list[float]) -> float:
    """Where between two steps a moment lies."""
    after = next(i for i, moment in enumerate(times) if moment >= mark_s)
    share = (mark_s - times[after - 1]) / (times[after] - times[after - 1])
    return steps[after - 1] + share * (steps[after] - steps[after - 1])


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"


def _series(records: list[Record], key: str) -> tuple[list[int], list[float | None]]:
    return [record["step"] for record in records], [record[key] for record in records]


def _gaps(values: Series) -> list[float]:
    """NaN for None, which matplotlib leaves out of a line."""
    return [float("nan") if value is None else value for value in values]
