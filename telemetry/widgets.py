"""The sections of the terminal view: each takes a ViewState and a width, and gives lines of text."""

from __future__ import annotations

import time

from rich.text import Text

from telemetry.curve import braille_curve, nice_limits, sparkline
from telemetry.parts import clean, describe_waits
from telemetry.pieces import LABEL, bar, fit, flow, label, named_values, percent, stacked_bar, wrapped
from telemetry.summary import WINDOW, format_duration, format_number
from telemetry.view_state import ViewState

_AXIS = 7
LAG_NAME = 5
"""Columns of the lags in their histogram."""
_STYLES = {
    "ready": "bright_black",
    "leased": "cyan",
    "buffered": "blue",
    "pulled": "yellow",
    "trained": "bright_green",
    "settled": "green",
    "filtered": "magenta",
    "dropped": "red",
    "dead_letter": "bright_red",
}


def progress_line(state: ViewState, width: int) -> Text:
    """Steps done, as numbers and as a bar, with the time gone and left."""
    total = state.info.total_steps
    head = Text.assemble(label("step"), (f"{state.step:,}", "bold"), (f"/{total:,}  ", "dim"))
    left = state.left_s()
    tail = f"  {format_duration(state.run_s)}" + (f" · {format_duration(left)} left" if left is not None else "")
    room = max(width - head.cell_len - len(tail), 0)
    full = round(room * min(state.step / total, 1.0)) if total else room
    return Text.assemble(head, ("━" * full, "green"), ("─" * (room - full), "bright_black"), (tail, "dim"))


def reward_head(state: ViewState, width: int) -> Text:
    """The reward's figures; what goes on, before the first step."""
    if not state.records:
        return Text.assemble(label("reward"), (clean(state.phase), "yellow"))
    first, last, best = state.reward_figures()
    head = Text.assemble(
        label("reward"),
        (format_number(last), "bold green"),
        f"  from {format_number(first)} · best {format_number(best)}",
    )
    meaning = f"  mean of {WINDOW} steps"
    return head.append(meaning if head.cell_len + len(meaning) <= width else "", style="dim")


def reward_rows(state: ViewState, width: int, rows: int) -> list[Text]:
    """The reward's curve with its axis; nothing before the first step."""
    if not state.records or rows < 1:
        return []
    curve = state.reward_curve()
    low, high = nice_limits(curve)
    lines = []
    for row, dots in enumerate(braille_curve(curve, width - _AXIS - 1, rows, low, high)):
        value = {0: high, rows - 1: low}.get(row)
        axis = f"{format_number(value)} ┤" if value is not None else "│"
        lines.append(Text.assemble((axis.rjust(_AXIS), "dim"), (dots, "green")))
    return lines


def lag_head(name: str, width: int) -> Text:
    """Heads the columns of `lag_rows`."""
    trained, _ = _lag_columns(width)
    return Text.assemble((f"{name:<{LAG_NAME + 2}}", "bold"), (f"{'trained':<{trained + 7}}buffered", "dim"))


def lag_rows(state: ViewState, width: int, rows: int) -> list[Text]:
    """How old the tokens trained lately are, and the groups in the buffer: one row a lag, or a few lags."""
    trained, buffered = state.trained_lags(), state.buffered_lags()
    largest = max([state.info.max_staleness, *trained, *buffered])
    each = -(-(largest + 1) // max(rows, 1))
    trained_width, buffered_width = _lag_columns(width)
    num_tokens, num_groups = sum(trained.values()), sum(buffered.values())
    lines = []
    for first in range(0, largest + 1, each)[:rows]:
        lags = range(first, first + each)
        tokens = sum(count for lag, count in trained.items() if lag in lags)
        groups = sum(count for lag, count in buffered.items() if lag in lags)
        share, style = tokens / num_tokens if num_tokens else 0.0, _lag_style(first, state.info.max_staleness)
        name = f"{first}" if each == 1 else f"{first}–{min(first + each - 1, largest)}"
        lines.append(
            Text.assemble(
                f"{name:>{LAG_NAME}}  ",
                bar(share, trained_width, style),
                f"{percent(share) if tokens else '':>6} ",
                bar(groups / num_groups if num_groups else 0.0, buffered_width, "blue"),
                f" {groups:,}" if groups else "",
            )
        )
    return lines


def _lag_columns(width: int) -> tuple[int, int]:
    """Columns of the two bars of the lag histogram; names and numbers take the rest."""
    room = max(width - LAG_NAME - 14, 8)
    return room * 3 // 5, room - room * 3 // 5


def _lag_style(lag: int, bound: int) -> str:
    return "red" if lag > bound else "green" if lag == 0 else "yellow"


def figure_lines(state: ViewState, width: int) -> list[Text]:
    """Lag against its bound, rates, how far off-policy, and where the learner's time goes; nothing before a step."""
    if not state.records:
        return []
    last, bound = state.records[-1], state.info.max_staleness
    largest = max(record["lag_max"] for record in state.records)
    is_broken = largest > bound
    return [
        Text.assemble(
            label("lag"),
            f"mean {format_number(last['lag_mean'])} · max {last['lag_max']}",
            (f" · run max {largest} of {bound} allowed", "bold red" if is_broken else "dim"),
        ),
        _rate_line(state, width),
        named_values(
            "off-policy",
            ratio=format_number(last["ratio_mean"]),
            clipped=percent(last["clipped_fraction"]),
            effective=percent(last["ess_fraction"]),
            drift=format_number(last["logprob_diff_mean"], 3),
        ),
        *_time_lines(state, width),
        *_evaluation_lines(state, width),
    ]


def _rate_line(state: ViewState, width: int) -> Text:
    actors = format_number(state.generated_tokens_per_s(), 0)
    learner = format_number(state.records[-1]["trained_tokens_per_s"], 0)
    length = format_number(state.records[-1]["completion_tokens_mean"], 0)
    text = len(f"actors {actors}  learner {learner}  length {length}")
    room = min((width - LABEL - text - 4) // 2, 24)
    line = label("tokens/s")
    for name, value, key in (
        ("actors", actors, "generated_tokens_per_s"),
        ("learner", learner, "trained_tokens_per_s"),
    ):
        line.append(f"{name} ", style="dim").append(value)
        values = state.recent_values(key, room)
        line.append(f" {sparkline(values, *nice_limits(values))}" if values else "", style="cyan").append("  ")
    return line.append("length ", style="dim").append(length)


def _time_lines(state: ViewState, width: int) -> list[Text]:
    shares = state.time_shares()
    if shares is None:
        return []
    styles = {"wait": "yellow", "train": "green", "publish": "cyan"}
    words = {"wait": "waits", "train": "trains", "publish": "publishes"}
    text = label("learner")
    text.append_text(stacked_bar([(shares[what], styles[what]) for what in styles], min(max(width - 60, 4), 16)))
    for what, style in styles.items():
        text.append_text(Text.assemble("  ", ("■ ", style), f"{words[what]} ", (percent(shares[what]), "bold")))
    return [text]


def _evaluation_lines(state: ViewState, width: int) -> list[Text]:
    """What the held-out prompts came to last, and of which step; nothing without an evaluation."""
    if not state.evaluations:
        return []
    first, last = state.evaluations[0], state.evaluations[-1]
    pieces = []
    for k, found in last["pass_at"].items():
        interval = f" [{format_number(found['low'])}, {format_number(found['high'])}]"
        pieces.append(Text.assemble((f"pass@{k} ", "dim"), (format_number(found["mean"]), "bold green"), interval))
    pieces.append(Text.assemble(("reward ", "dim"), format_number(last["mean_reward"])))
    since = f", {format_number(first['mean_reward'])} of {first['step']:,}" if first is not last else ""
    pieces.append(Text(f"of step {last['step']:,}{since}", style="dim"))
    lines = flow(pieces, width)
    lines[0] = Text.assemble(label("evaluated"), lines[0][LABEL:])
    return lines


def ledger_lines(state: ViewState, width: int) -> list[Text]:
    """A bar of all prompts by state, the counts, and whether they add up."""
    counts = state.ledger()
    if not counts:
        return [Text.assemble(label("ledger"), ("no prompts yet", "dim"))]
    head = label("ledger")
    head.append_text(stacked_bar([(count, _style(name)) for name, count in counts], max(width - LABEL, 1)))
    legend = [
        Text.assemble(("■ ", _style(name)), f"{clean(name).replace('_', '-')} ", (f"{count:,}", "bold"))
        for name, count in counts
    ]
    missing = state.missing_entries()
    total = sum(count for _, count in counts)
    broken = (f"= {total:,} ≠ {total + missing:,} opened", "bold red")
    legend.append(Text.assemble(broken if missing else (f"= {total:,} opened", "dim")))
    return [head, *flow(legend, width)]


def _style(state: str) -> str:
    return _STYLES.get(state, "white")


def wait_lines(state: ViewState, width: int) -> list[Text]:
    """Who waits for what; whether nothing moves at all."""
    if not state.parts:
        return []
    pending = clean(state.fleet.get("waiting_for", ""))
    waits = " · ".join(filter(None, (pending, describe_waits(state.parts))))
    if state.is_stalled:
        text = f"nothing has moved for {format_duration(state.idle_s)}" + (f": {waits}" if waits else "")
        return wrapped("STALLED", Text(text, style="bold yellow"), width)
    return wrapped("waits", Text(waits, style="yellow") if waits else Text("nobody", style="dim"), width)


def advice_lines(state: ViewState, width: int) -> list[Text]:
    """What whoever runs it might change; nothing without advice."""
    text = Text(clean(state.advice.replace("no advice", "none", 1)))
    return wrapped("advice", text, width, most=3) if state.advice else []


def happening_lines(state: ViewState, width: int, count: int) -> list[Text]:
    """The last things that happened."""
    lines = []
    for one in list(state.happenings)[-count:] if count > 0 else []:
        clock = time.strftime("%H:%M:%S", time.localtime(one.time_s))
        lines.append(Text.assemble((f"{clock:<{LABEL}}", "dim"), (clean(one.text), "yellow" if one.is_warning else "")))
    return [fit(line, width) for line in lines]
