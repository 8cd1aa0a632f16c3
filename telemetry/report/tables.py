"""The parts of the page that are text: figures, ledger, costs, environment, configuration."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from telemetry.report.by_lag import lag_rows
from telemetry.report.costs import REWARD_STEP, compute_costs
from telemetry.report.html import Html, join, section, table, tag, text
from telemetry.report.lanes import time_shares
from telemetry.report.run_data import RunData
from telemetry.summary import STATES, WINDOW, format_duration, format_number, ledger_line
from telemetry.timeline import ACTIVITIES

Runs = Sequence[RunData]
DASH = "–"


def title(run: RunData) -> Html:
    """Name of a run, and what it was."""
    return join([tag("h1", text(run.name)), tag("p", text(_describe(run)), class_="note")])


def comparison_title(runs: Runs) -> Html:
    """Names of the runs, each with the colour that it has in the pictures."""
    names = [
        tag("li", Html(f'<i class="swatch run-{index}"></i>'), tag("b", text(run.name)), text(f" {_describe(run)}"))
        for index, run in enumerate(runs)
    ]
    return join([tag("h1", text(f"{len(runs)} runs compared")), tag("ul", *names, class_="legend runs")])


def _describe(run: RunData) -> str:
    parts = [run.config["schedule"]["mode"], run.config["model"]["path"], run.config["task"]["name"]]
    started_s = run.environment.get("started_s")
    if started_s:
        parts.append(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started_s)))
    return " · ".join(str(part) for part in parts)


def noscript() -> Html:
    """For readers who switched scripts off."""
    return Html('<noscript><p class="note">The pictures are drawn by a script; the tables need none.</p></noscript>')


# --- figures ----------------------------------------------------------------------------------------


def cards(run: RunData) -> Html:
    """The figures of one run."""
    figures = run.figures
    busy = figures.wait_s + figures.train_s + figures.publish_s
    waiting = f"; the learner waited {100 * figures.wait_s / busy:.0f} % of it" if busy else ""
    groups = figures.groups + figures.groups_filtered
    shown = [
        (format_number(figures.reward_last), f"reward at last, from {format_number(figures.reward_first)}", "lead"),
        (format_number(figures.reward_best), f"best reward, mean of {WINDOW} steps", ""),
        (format_duration(figures.elapsed_s), f"for {figures.steps:,} steps{waiting}", ""),
        (
            f"{figures.lag_max} of {run.bound}",
            "largest lag of a token, and its bound",
            "good" if figures.lag_max <= run.bound else "bad",
        ),
        (format_number(figures.generated_tokens_per_s, 0), "tokens/s generated", ""),
        (format_number(figures.trained_tokens_per_s, 0), f"tokens/s trained, {figures.tokens_trained:,} in all", ""),
        (percent(figures.ess_fraction), "effective sample size", ""),
        (percent(figures.groups_filtered / max(groups, 1)), f"of {groups:,} groups had no signal", ""),
        (format_number(figures.logprob_diff_mean, 4), "nats of drift between engine and trainer", ""),
    ]
    items = [
        tag("div", tag("b", text(big)), tag("small", text(small)), class_=f"card {kind}".strip())
        for big, small, kind in shown
    ]
    return tag("div", *items, class_="cards")


def figure_table(runs: Runs) -> Html:
    """The figures of several runs."""
    rows: list[tuple[str, list[str]]] = [
        ("steps", [f"{run.figures.steps:,}" for run in runs]),
        ("time", [format_duration(run.figures.elapsed_s) for run in runs]),
        ("reward at first", [format_number(run.figures.reward_first, 3) for run in runs]),
        ("reward at last", [format_number(run.figures.reward_last, 3) for run in runs]),
        ("best reward", [format_number(run.figures.reward_best, 3) for run in runs]),
        ("largest lag, of bound", [f"{run.figures.lag_max} of {run.bound}" for run in runs]),
        ("mean lag, steps", [format_number(run.figures.lag_mean) for run in runs]),
        ("tokens/s generated", [format_number(run.figures.generated_tokens_per_s, 0) for run in runs]),
        ("tokens/s trained", [format_number(run.figures.trained_tokens_per_s, 0) for run in runs]),
        ("tokens trained", [f"{run.figures.tokens_trained:,}" for run in runs]),
        ("effective sample size", [percent(run.figures.ess_fraction, 1) for run in runs]),
        ("learner waited", [_waited(run) for run in runs]),
        ("groups without signal", [f"{run.figures.groups_filtered:,}" for run in runs]),
        ("drift, nats", [format_number(run.figures.logprob_diff_mean, 4) for run in runs]),
    ]
    return table(["figure", *(run.name for run in runs)], [[name, *cells] for name, cells in rows])


def _waited(run: RunData) -> str:
    figures = run.figures
    busy = figures.wait_s + figures.train_s + figures.publish_s
    return percent(figures.wait_s / busy) if busy else DASH


def lag_table(runs: Runs) -> Html:
    """What the pictures by lag show, in numbers, over all steps."""
    head = ["lag", "share of tokens", "mean ratio", "5 % to 95 %", "clipped", "effective sample", "KL, nats"]
    rows = []
    for run in runs:
        for row in lag_rows(run.records):
            quantiles = [format_number(row[key], 2) for key in ("ratio_p05", "ratio_p95")]
            rows.append(
                [
                    str(row["lag"]) if len(runs) == 1 else f"{run.name}, {row['lag']}",
                    percent(row["share"], 1),
                    format_number(row["ratio_mean"], 3),
                    " to ".join(quantiles),
                    percent(row["clipped_fraction"], 1),
                    percent(row["ess_fraction"], 1),
                    format_number(row["kl_behaviour"], 4),
                ]
            )
    return _details("In numbers", table(head, rows))


def share_table(runs: Runs) -> Html:
    """Where the time of each process went, over all that was recorded."""
    shares = [
        (name if len(runs) == 1 else f"{run.name}: {name}", time_shares(spans))
        for run in runs
        for name, spans in run.timeline.items()
    ]
    used = [what for what in ACTIVITIES if any(what in found for _, found in shares)]
    rows = [[name, *(percent(found[what], 1) if what in found else DASH for what in used)] for name, found in shares]
    return _details("Share of the recorded time", table(["process", *used], rows))


# --- ledger, costs ----------------------------------------------------------------------------------


def ledger(runs: Runs) -> Html:
    """Where every prompt went, and the sum that must add up."""
    parts = [_ledger_of(run, run.status, is_alone=len(runs) == 1) for run in runs if run.status is not None]
    return section("ledger", "Ledger", join(parts), "Every prompt of every epoch is in exactly one state.")


def _ledger_of(run: RunData, status: Mapping[str, Any], *, is_alone: bool) -> Html:
    counts, opened = status["ledger"], status["opened"]
    kind = "good" if sum(counts.values()) == opened else "bad"
    present = [(state, counts[state]) for state in STATES if counts.get(state)]
    bar = [
        tag("i", class_=f"state {state}", style=f"flex-grow:{count}", title=f"{_spoken(state)}: {count:,}")
        for state, count in present
    ]
    legend = [
        tag("li", Html(f'<i class="swatch {state}"></i>'), text(_spoken(state)), tag("b", text(f" {count:,}")))
        for state, count in present
    ]
    events = [[name.replace("_", " "), f"{count:,}"] for name, count in sorted(status["events"].items()) if count]
    return join(
        [
            Html("") if is_alone else tag("h3", text(run.name)),
            tag("p", text(ledger_line(status)), class_=kind),
            tag("div", *bar, class_="bar"),
            tag("ul", *legend, class_="legend"),
            _details("Events", table(["event", "times"], events)) if events else Html(""),
        ]
    )


def _spoken(state: str) -> str:
    return state.replace("_", "-")


def costs(runs: Runs) -> Html:
    """What the runs cost, and what learning cost."""
    if not any(run.records for run in runs):
        return Html("")
    found = [compute_costs(run.records, run.environment) for run in runs]
    more = f"per {REWARD_STEP:g} more of reward"
    rows: list[tuple[str, list[str]]] = [
        ("working time", [format_duration(run.figures.elapsed_s) for run in runs]),
        ("core-hours", [format_number(one.core_hours, 3) for one in found]),
        ("GPU-hours", [format_number(one.gpu_hours, 3) for one in found]),
        ("tokens generated", [format_number(one.tokens_generated, 0) for one in found]),
        ("tokens trained", [f"{one.tokens_trained:,}" for one in found]),
        ("reward gained", [format_number(one.reward_gain, 3) for one in found]),
        (f"tokens generated {more}", [format_number(one.per_reward(one.tokens_generated), 0) for one in found]),
        (f"core-hours {more}", [format_number(one.per_reward(one.core_hours), 3) for one in found]),
        (f"GPU-hours {more}", [format_number(one.per_reward(one.gpu_hours), 3) for one in found]),
    ]
    names = [run.name for run in runs] if len(runs) > 1 else [""]
    # A run without GPUs has no line about them.
    shown = [[name, *cells] for name, cells in rows if not set(cells) <= {DASH, "0.000"}]
    note = "Working time, from the first actor that was ready, times the cores and GPUs that the parts were given."
    return section("costs", "Costs", table(["", *names], shown), note)


# --- environment and configuration ------------------------------------------------------------------


def environment(runs: Runs) -> Html:
    """What the runs ran on, and with what."""
    found = [_environment_of(run.environment) for run in runs]
    names = list(dict.fromkeys(name for one in found for name in one))
    if not names:
        return Html("")
    rows = [[name, *(one.get(name, DASH) for one in found)] for name in names]
    head = ["", *([run.name for run in runs] if len(runs) > 1 else [""])]
    return section("environment", "Environment", table(head, rows, class_="words"))


def _environment_of(values: Mapping[str, Any]) -> dict[str, str]:
    if not values:
        return {}
    nodes = [f"{node['host']}: {node['cores']:g} cores, {node['gpus']:g} GPUs" for node in values.get("nodes", [])]
    return {
        "commit": values.get("commit") or DASH,
        "Python": values.get("python", DASH),
        **{name: str(version) for name, version in values.get("packages", {}).items()},
        "platform": values.get("platform", DASH),
        "host": values.get("host", DASH),
        "processor": f"{values.get('processor', '')}, {values.get('cores', '?')} cores",
        "memory": f"{values.get('memory_gib', '?')} GiB",
        "GPUs": "; ".join(values.get("gpus", [])) or "none",
        **({"cluster": "; ".join(nodes)} if nodes else {}),
        **{_whose(name): _resources(given) for name, given in values.get("parts", {}).items()},
    }


def _whose(part: str) -> str:
    return "the learner" if part == "learner" else f"each {part}"


def _resources(given: Mapping[str, float]) -> str:
    gpus = f", {given['gpus']:g} GPU" if given["gpus"] else ""
    return f"{given['cores']:g} core{'' if given['cores'] == 1 else 's'}{gpus}"


def configuration(runs: Runs) -> Html:
    """The whole configuration; of several runs, the fields that differ come first."""
    flat = [_flatten(run.config) for run in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    parts = []
    if len(runs) > 1:
        differing = [key for key in keys if len({_value(one.get(key)) for one in flat}) > 1 and key != "run.name"]
        rows = [[key, *(_value(one.get(key)) for one in flat)] for key in differing]
        head = ["differs", *(run.name for run in runs)]
        parts.append(table(head, rows, class_="words") if rows else tag("p", text("The configurations are equal.")))
    for name in dict.fromkeys(key.partition(".")[0] for key in keys):
        rows = [
            [key.partition(".")[2], *(_value(one.get(key)) for one in flat)]
            for key in keys
            if key.partition(".")[0] == name
        ]
        head = ["field", *([run.name for run in runs] if len(runs) > 1 else ["value"])]
        parts.append(_details(f"[{name}]", table(head, rows, class_="words")))
    return section("configuration", "Configuration", join(parts))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _details(summary: str, content: Html) -> Html:
    return tag("details", tag("summary", text(summary)), content)


def percent(share: float | None, digits: int = 0) -> str:
    """A share in percent; a dash for None."""
    return DASH if share is None else f"{100 * share:.{digits}f} %"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
