"""The table of a run's processes: hub and learner, and as many of the actors as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from telemetry.controls import Controls
from telemetry.parts import Part, format_since, sort_actors
from telemetry.pieces import LABEL, fit, percent
from telemetry.view_state import ViewState

_STATE_WIDTH = 19
"""Columns below which another column gives way to what a process does."""


def _whole(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column right of the state. `rank` says how late it gives way where the terminal is narrow."""

    head: str
    width: int
    rank: int
    show: Callable[[Part], str]
    sort: str = ""


_COLUMNS = (
    _Column("since", 8, 5, lambda part: format_since(part.since_s), "waiting"),
    _Column("version", 8, 3, lambda part: part.version),
    _Column("behind", 7, 4, lambda part: _whole(part.behind), "lag"),
    _Column("leases", 7, 2, lambda part: _whole(part.num_leases)),
    _Column("tokens/s", 10, 6, lambda part: _whole(part.tokens_per_s), "tokens/s"),
    _Column("busy", 6, 1, lambda part: "" if part.busy is None else percent(part.busy)),
    _Column("host", 18, 0, lambda part: part.host),
)


def table_lines(state: ViewState, width: int, room: int, controls: Controls | None) -> tuple[list[Text], int]:
    """Header, hub, learner and actors, and how many of the actors are shown.

    Args:
        room: lines for actors; where there are more actors, the header says which are shown.
        controls: how to sort and from which actor on; None by name, from the first.
    """
    columns, controls = _choose_columns(width), controls or Controls()
    actors = sort_actors(state.actors, controls.sort, is_reversed=controls.is_reversed)
    num_shown = min(len(actors), room)
    first = min(controls.offset, len(actors) - num_shown)
    shown = f" · {first + 1:,}–{first + num_shown:,} of {len(actors):,}" if 0 < num_shown < len(actors) else ""
    lines = [_header(columns, width, controls, f"state{shown}")]
    lines += [_row(part, columns, width) for part in state.parts if part.role != "actor"]
    lines += [_row(part, columns, width) for part in actors[first : first + num_shown]]
    if not actors:
        lines.append(Text.assemble(f"{'actors':<{LABEL}}", ("none yet", "yellow")))
    return lines, num_shown


def _choose_columns(width: int) -> list[_Column]:
    chosen = list(_COLUMNS)
    while chosen and width - LABEL - sum(column.width for column in chosen) < _STATE_WIDTH:
        chosen.remove(min(chosen, key=lambda column: column.rank))
    return chosen


def _header(columns: Sequence[_Column], width: int, controls: Controls, state_head: str) -> Text:
    arrow = "▲" if controls.is_reversed != (controls.sort == "name") else "▼"
    marked = f"part {arrow}" if controls.sort == "name" else "part"
    line = fit(Text(marked, style="bold"), LABEL)
    line.append_text(fit(Text(state_head, style="bold"), _state_width(columns, width)))
    for column in columns:
        head = f"{arrow}{column.head}" if column.sort == controls.sort else column.head
        line.append(f" {head:>{column.width - 1}}", style="bold")
    return line


def _row(part: Part, columns: Sequence[_Column], width: int) -> Text:
    mark, style = ("✗", "red") if part.is_silent else ("○", "yellow") if part.is_waiting else ("●", "green")
    line = fit(Text(part.name), LABEL - 1).append(" ")
    activity = Text.assemble((f"{mark} ", style), (part.activity, "" if style == "green" else style))
    line.append_text(fit(activity, _state_width(columns, width)))
    for column in columns:
        cell = fit(Text(column.show(part)[: column.width - 1].rjust(column.width - 1)), column.width - 1)
        line.append(" ").append_text(cell)
    return line


def _state_width(columns: Sequence[_Column], width: int) -> int:
    return max(width - LABEL - sum(column.width for column in columns), 4)
