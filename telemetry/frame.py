"""Draws one frame of the terminal view. Pure: a ViewState in, something that rich prints out."""

from __future__ import annotations

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from telemetry.catalogue import ACTOR_TOKEN_RATE
from telemetry.curve import braille_curve, nice_limits, smooth, sparkline
from telemetry.summary import WINDOW, compute_figures, format_duration, format_number
from telemetry.view_state import ClientLine, ViewState

WIDE = 108
"""Columns from which two blocks stand side by side."""
MIN_WIDTH = 60
_LABEL = 11
_AXIS = 7
_MAX_CLIENTS = 6
_MAX_EVENTS = 4
_MIN_ROWS, _MAX_ROWS = 3, 8
_FRAME_LINES = 5
"""Lines of the border, of the step, below it, and of the reward's figures."""
_LEFT_WIDTH = 64
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


def render(state: ViewState) -> RenderableType:
    """The frame; it takes its width and height from the console that prints it."""
    return _Frame(state)


class _Frame:
    """A frame that is laid out when the console's size is known."""

    def __init__(self, state: ViewState) -> None:
        self._state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width, MIN_WIDTH)
        inner, height = width - 4, console.size.height
        body = _wide_body(self._state, inner, height) if width >= WIDE else _narrow_body(self._state, inner, height)
        info = self._state.info
        title = Text.assemble(" ", ("rapid", "bold"), (" · ", "dim"), (info.name, "bold cyan"), " ")
        subtitle = Text(f" {info.mode} · {info.model} ", style="dim")
        yield Panel(
            Group(_progress_line(self._state, inner), Text(), *body),
            box=box.ROUNDED,
            border_style="yellow" if self._state.is_stalled else "bright_black",
            title=title,
            title_align="left",
            subtitle=subtitle,
            subtitle_align="right",
            width=width,
        )


def _narrow_body(state: ViewState, width: int, height: int) -> list[Text]:
    sections = [
        _figure_lines(state, width),
        _ledger_lines(state, width),
        _client_lines(state, width),
        _event_lines(state, width),
    ]
    spare = height - _FRAME_LINES - _MIN_ROWS - sum(len(lines) for lines in sections)
    below = _join(sections, is_spaced=spare >= len(sections))
    rows = min(max(height - _FRAME_LINES - len(below) - 1, _MIN_ROWS), _MAX_ROWS)
    return [*_reward_block(state, width, rows), *([Text()] if spare >= len(sections) else []), *below]


def _wide_body(state: ViewState, width: int, height: int) -> list[RenderableType]:
    left = max(width * 11 // 20, _LEFT_WIDTH)
    right = width - left - 3
    side = _join([_ledger_lines(state, right), _client_lines(state, right), _event_lines(state, right)])
    figures = _figure_lines(state, left)
    wanted, room = len(side) - len(figures) - 2, height - _FRAME_LINES - len(figures) - 2
    rows = max(min(max(wanted, _MAX_ROWS), room), _MIN_ROWS)
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(width=left)
    grid.add_column(width=right)
    grid.add_row(Group(*_reward_block(state, left, rows), Text(), *figures), Group(*side))
    return [grid]


def _join(sections: list[list[Text]], *, is_spaced: bool = True) -> list[Text]:
    """The lines of all sections that have any, with an empty line between two."""
    lines: list[Text] = []
    for section in sections:
        lines += [Text()] if lines and section and is_spaced else []
        lines += section
    return lines


def _progress_line(state: ViewState, width: int) -> Text:
    total = state.info.total_steps
    head = Text.assemble(_label("step"), (f"{state.step:,}", "bold"), (f"/{total:,}  ", "dim"))
    left = state.left_s()
    tail = f"  {format_duration(state.run_s)}" + (f" · {format_duration(left)} left" if left is not None else "")
    room = width - head.cell_len - cell_len(tail)
    done = min(state.step / total, 1.0) if total else 1.0
    full = round(room * done)
    return Text.assemble(head, ("━" * full, "green"), ("─" * (room - full), "bright_black"), (tail, "dim"))


def _reward_block(state: ViewState, width: int, rows: int) -> list[Text]:
    if not state.records:
        text = Text.assemble(_label("reward"), (state.phase, "yellow"))
        return [text]
    figures = compute_figures(state.records)
    series = smooth(state.reward_series(), WINDOW)[: state.step]
    series += [None] * (max(state.info.total_steps, state.step) - len(series))
    low, high = nice_limits(series)
    curve = braille_curve(series, width - _AXIS - 1, rows, low, high)
    lines = [
        Text.assemble(
            _label("reward"),
            (format_number(figures.reward_last), "bold green"),
            (f"  from {format_number(figures.reward_first)} · best {format_number(figures.reward_best)}", ""),
            (f"  mean of {WINDOW} steps", "dim"),
        )
    ]
    for row, dots in enumerate(curve):
        label = {0: high, rows - 1: low}.get(row)
        axis = f"{format_number(label)} ┤" if label is not None else "│"
        lines.append(Text.assemble((axis.rjust(_AXIS), "dim"), (dots, "green")))
    return lines


def _figure_lines(state: ViewState, width: int) -> list[Text]:
    if not state.records:
        return []
    last, bound = state.records[-1], state.info.max_staleness
    largest = max(record["lag_max"] for record in state.records)
    return [
        Text.assemble(
            _label("lag"),
            f"mean {format_number(last['lag_mean'])} · max {last['lag_max']}",
            (f" · run max {largest} of {bound} allowed", "bold red" if largest > bound else "dim"),
        ),
        _named_values(
            "tokens/s",
            actors=format_number(state.generated_tokens_per_s(), 0),
            learner=format_number(last["trained_tokens_per_s"], 0),
            length=format_number(last["completion_tokens_mean"], 0),
        ),
        _named_values(
            "off-policy",
            ratio=format_number(last["ratio_mean"]),
            clipped=_percent(last["clipped_fraction"]),
            effective=_percent(last["ess_fraction"]),
            drift=format_number(last["logprob_diff_mean"], 3),
        ),
        *_time_lines(state, width),
    ]


def _named_values(label: str, **values: str) -> Text:
    text = _label(label)
    for name, value in values.items():
        text.append(f"{name} ", style="dim").append(f"{value}  ")
    return text


def _time_lines(state: ViewState, width: int) -> list[Text]:
    shares = state.time_shares()
    if shares is None:
        return []
    styles = {"wait": "yellow", "train": "green", "publish": "cyan"}
    words = {"wait": "waits", "train": "trains", "publish": "publishes"}
    text = _label("learner")
    text.append_text(_bar([(shares[what], styles[what]) for what in styles], min(max(width - 60, 4), 16)))
    for what, style in styles.items():
        text.append_text(Text.assemble("  ", ("■ ", style), f"{words[what]} ", (_percent(shares[what]), "bold")))
    return [text]


def _ledger_lines(state: ViewState, width: int) -> list[Text]:
    counts = state.ledger()
    if not counts:
        return [Text.assemble(_label("ledger"), ("no prompts yet", "dim"))]
    opened = sum(count for _, count in counts)
    head = _label("ledger")
    head.append_text(_bar([(count, _style(name)) for name, count in counts], width - _LABEL))
    legend = [
        Text.assemble(("■ ", _style(name)), f"{name.replace('_', '-')} ", (f"{count:,}", "bold"))
        for name, count in counts
    ]
    legend.append(Text(f"of {opened:,}", style="dim"))
    return [head, *_flow(legend, width)]


def _flow(pieces: list[Text], width: int) -> list[Text]:
    """The pieces beside each other, broken into indented lines where they do not fit."""
    lines = [_label("")]
    for piece in pieces:
        if lines[-1].cell_len + piece.cell_len > width:
            lines.append(_label(""))
        lines[-1].append_text(piece).append("  ")
    return lines


def _client_lines(state: ViewState, width: int) -> list[Text]:
    clients = state.clients()
    lines = [_client_text(client, width) for client in clients[:_MAX_CLIENTS]]
    rest = clients[_MAX_CLIENTS:]
    if rest:
        waiting = sum(client.is_waiting or client.is_silent for client in rest)
        lines.append(Text(f"{'':{_LABEL}}and {len(rest)} more, {waiting} of them waiting", style="dim"))
    if not any(client.role == "actor" for client in clients):
        lines.append(Text.assemble(_label("actors"), ("none yet", "yellow")))
    if state.is_stalled:
        lines.append(Text(f"{'':{_LABEL}}nothing has moved for {format_duration(state.idle_s)}", style="bold yellow"))
    return lines


def _client_text(client: ClientLine, width: int) -> Text:
    mark, style = ("○", "yellow") if client.is_waiting else ("●", "green")
    if client.is_silent:
        mark, style = "✗", "red"
    text = _label(client.name).append_text(Text.assemble((f"{mark} ", style), f"{client.version:<5} "))
    rate = client.metrics.get(ACTOR_TOKEN_RATE.name)
    is_at_work = style == "green"
    text.append(
        f"{rate:,.0f} tokens/s" if rate is not None and is_at_work else client.activity,
        style="" if is_at_work else style,
    )
    text.append(f" · {client.num_leases} groups" if client.role == "actor" else "", style="dim")
    text.truncate(width, overflow="ellipsis")
    return text


def _event_lines(state: ViewState, width: int) -> list[Text]:
    lines = []
    for clock, message in list(state.events)[-_MAX_EVENTS:]:
        line = Text.assemble((f"{clock:<{_LABEL}}", "dim"), message)
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return lines


def _bar(parts: list[tuple[float, str]], width: int) -> Text:
    """A bar of coloured stretches; what is not zero gets at least one cell."""
    parts = [(amount, style) for amount, style in parts if amount > 0]
    total = sum(amount for amount, _ in parts)
    cells = [max(round(width * amount / total), 1) for amount, _ in parts]
    while cells and sum(cells) != width:
        cells[cells.index(max(cells))] += 1 if sum(cells) < width else -1
    return Text.assemble(*(("█" * count, style) for count, (_, style) in zip(cells, parts, strict=True)))


def _style(state: str) -> str:
    return _STYLES.get(state, "white")


def _label(name: str) -> Text:
    return Text.assemble((f"{name[: _LABEL - 1]:<{_LABEL}}", "bold"))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def plain_line(state: ViewState) -> str:
    """The newest step in one line, for logs and pipes."""
    last, total = state.records[-1], state.info.total_steps
    rewards = [record["reward_mean"] for record in state.records[-20:]]
    left = state.left_s()
    return (
        f"step {last['step']:>{len(str(total))}}/{total}"
        f"  reward {format_number(last['reward_mean'])} {sparkline(rewards, *nice_limits(rewards))}"
        f"  lag {format_number(last['lag_mean'])}, max {last['lag_max']}/{state.info.max_staleness}"
        f"  tokens/s {format_number(last['generated_tokens_per_s'], 0)} made"
        f" {format_number(last['trained_tokens_per_s'], 0)} trained"
        f"  wait {format_number(last['wait_s'], 1)} s  train {format_number(last['train_s'], 1)} s"
        + (f"  left {format_duration(left)}" if left is not None else "")
    )
