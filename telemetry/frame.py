"""Draws one frame of the terminal view, for `rapid train` and `rapid top`. Pure: a ViewState in, lines of text out.

80 columns                                WIDE columns
    progress                                  progress
    reward          | lag histogram           reward                        | lag histogram
    figures                                   figures                       | ledger, waits, advice
    ledger, waits, advice                     hub, learner, actors
    hub, learner, actors                      what happened last
    what happened last
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from telemetry.controls import Controls
from telemetry.curve import nice_limits, sparkline
from telemetry.parts import clean
from telemetry.parts_table import table_lines
from telemetry.pieces import LABEL, beside, fit
from telemetry.summary import format_duration, format_number
from telemetry.view_state import ViewState
from telemetry.widgets import (
    LAG_NAME,
    advice_lines,
    figure_lines,
    happening_lines,
    lag_head,
    lag_rows,
    ledger_lines,
    progress_line,
    reward_head,
    reward_rows,
    wait_lines,
)

WIDE = 116
"""Columns from which the ledger stands beside the figures."""
MIN_WIDTH = 60
"""The narrowest frame; a narrower terminal shows its left part."""
_LAG_WIDTH = 31
_LAG_ROWS = 4
_SIDE_WIDTH = 44
_KEYS = ("↑↓ scroll", "r reverse", "s sort", "p pause", "q quit", "? help")
"""The last ones are shown also where there is little room."""
_HELP = """
q          quit; so does Ctrl-C
p, space   pause: the frame stands still while the run goes on
s          sort the actors by name, tokens/s, steps behind, waiting time
r          reverse that order
↑ ↓ k j    scroll the actors by one; PgUp, PgDn by a page; Home, End
?          this help; any key leaves it

●  works    ○  waits, for what stands beside it    ✗  silent for over 15 s

reward     of all groups that came in, smoothed over 5 steps
lag        optimizer steps between the weights that generated a token and
           those that it trained; in the buffer, to the next batch
behind     optimizer steps between an actor's weights and the learner's
ledger     every prompt opened is in exactly one state, or the sum says so
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines of equal width, and how many actors are among them."""

    lines: list[Text]
    num_actors: int


@dataclass(frozen=True, slots=True)
class _Room:
    """Lines that the parts of variable height may take."""

    rows: int
    """Of the reward's curve."""
    actors: int
    happenings: int
    gaps: int
    """Empty lines between sections."""


def render(state: ViewState) -> RenderableType:
    """The frame of `rapid train`; it takes its width and height from the console that prints it."""
    return _Renderable(state)


class _Renderable:
    """A frame that is laid out when the console's size is known."""

    def __init__(self, state: ViewState) -> None:
        self._state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(*draw(self._state, options.max_width, console.size.height).lines)


def draw(state: ViewState, width: int, height: int | None, controls: Controls | None = None) -> Frame:
    """A frame no wider than `width` columns and no higher than `height` lines (None: as high as it gets).

    `controls` are those of `rapid top`; without them no keys are shown.
    """
    outer = max(width, MIN_WIDTH)
    inner = outer - 4
    num_actors = 0
    if controls is not None and controls.shows_help:
        body = [Text(line) for line in _HELP.strip().splitlines()]
    else:
        body, num_actors = _body(state, inner, height, controls)
    body = body if height is None else body[: max(height - 2, 0)]
    style = "red" if state.silent_s else "yellow" if state.is_stalled else "bright_black"
    lines = [
        _edge("╭", "╮", _title(state), _condition(state, controls), outer, style),
        *(Text.assemble(("│ ", style), fit(line, inner), (" │", style)) for line in body),
        _edge("╰", "╯", _keys(outer) if controls is not None else Text(), Text(), outer, style),
    ]
    lines = [_cropped(line, width) for line in lines]
    return Frame(lines if height is None else lines[: max(height, 1)], num_actors)


def _cropped(line: Text, width: int) -> Text:
    line.truncate(max(width, 1), overflow="crop")
    return line


def _title(state: ViewState) -> Text:
    info = state.info
    return Text.assemble(
        ("rapid", "bold"),
        (" · ", "dim"),
        (clean(info.name), "bold cyan"),
        (f" · {clean(info.mode)} · {clean(info.model)}", "dim"),
    )


def _keys(width: int) -> Text:
    """As many of the keys as fit."""
    shown = [key for number, key in enumerate(_KEYS) if sum(len(one) + 2 for one in _KEYS[number:]) < width - 8]
    return Text("  ".join(shown), style="dim")


def _condition(state: ViewState, controls: Controls | None) -> Text:
    """What must be known to read the frame."""
    if state.is_over:
        return Text("over", style="bold")
    if state.silent_s:
        return Text(f"no answer for {format_duration(state.silent_s)}", style="bold red")
    if controls is not None and controls.is_paused:
        return Text("paused", style="bold yellow")
    return Text()


def _edge(left: str, right: str, begin: Text, end: Text, width: int, style: str) -> Text:
    """A line of the border with a text near each end, if there is one."""
    begin = fit(begin, min(begin.cell_len, width - 8 - (end.cell_len + 4 if end else 0)))
    first = Text.assemble((f"{left}─ " if begin else f"{left}─", style), begin, " " if begin else "")
    last = Text.assemble(" " if end else "", end, (f" ─{right}" if end else f"─{right}", style))
    return Text.assemble(first, ("─" * (width - first.cell_len - last.cell_len), style), last)


def _body(state: ViewState, width: int, height: int | None, controls: Controls | None) -> tuple[list[Text], int]:
    is_wide = width + 4 >= WIDE
    side_width = max(_SIDE_WIDTH, width * 2 // 5) if is_wide else width
    left_width = width - side_width - 3 if is_wide else width
    progress, figures = progress_line(state, width), figure_lines(state, left_width)
    books = [*ledger_lines(state, side_width), *wait_lines(state, side_width), *advice_lines(state, side_width)]
    side = [*_lag_block(state, side_width), *books] if is_wide else []
    has_parts = bool(state.parts)
    table_head, _ = table_lines(state, width, 0, controls) if has_parts else ([], 0)
    # Beside each other, what the shorter column lacks of the longer one costs nothing.
    free_rows = max(len(side) - 1 - len(figures), 0) if state.records else 0
    fixed = 2 + len(figures) + (free_rows if is_wide else len(books)) + len(table_head)
    room = _allot(state, None if height is None else height - 2 - fixed, free_rows)
    table, num_shown = table_lines(state, width, room.actors, controls) if has_parts else ([], 0)
    happenings = happening_lines(state, width, room.happenings)
    if is_wide:
        reward = [reward_head(state, left_width), *reward_rows(state, left_width, room.rows)]
        sections = [[progress], beside([*reward, *figures], side, left_width), table, happenings]
    else:
        sections = [[progress], _reward_beside_lag(state, width, room.rows), figures, books, table, happenings]
    return _join(sections, room.gaps), num_shown


def _allot(state: ViewState, room: int | None, free_rows: int) -> _Room:
    """Shares out the lines that are left to what can use them, in turns: something of everything comes first."""
    num_actors, num_happenings = len(state.actors), len(state.happenings)
    if room is None:
        return _Room(max(8, free_rows), num_actors, min(num_happenings, 10), gaps=5)
    demands = [
        ("rows", 3),
        ("actors", 2),
        ("happenings", 2),
        ("actors", 4),
        ("happenings", 3),
        ("rows", 5),
        ("gaps", 5),
        ("rows", 8),
        ("actors", num_actors),
        ("happenings", 8),
        ("rows", 10),
    ]
    limits = {"actors": num_actors, "happenings": num_happenings, "rows": 10 if state.records else 0}
    got = Counter(rows=free_rows)
    for what, wish in demands:
        more = max(min(wish, limits.get(what, wish)) - got[what], 0)
        given = min(more, max(room, 0))
        if what == "gaps" and given < more:
            continue
        got[what] += given
        room -= given
    return _Room(got["rows"], got["actors"], got["happenings"], got["gaps"])


def _reward_beside_lag(state: ViewState, width: int, rows: int) -> list[Text]:
    if not state.records:
        return [reward_head(state, width)]
    left_width = width - _LAG_WIDTH - 3
    left = [reward_head(state, left_width), *reward_rows(state, left_width, rows)]
    right = [lag_head("lag", _LAG_WIDTH), *lag_rows(state, _LAG_WIDTH, rows)] if rows else []
    return beside(left, right, left_width)


def _lag_block(state: ViewState, width: int) -> list[Text]:
    """The lag histogram as a section of its own, under the labels of the other sections."""
    if not state.records:
        return []
    # The names of the lags stand where the other sections have their labels.
    indent = Text(" " * (LABEL - LAG_NAME - 2))
    room = width - indent.cell_len
    rows = [lag_head("", room), *lag_rows(state, room, _LAG_ROWS)]
    lines = [indent.copy().append_text(row) for row in rows]
    lines[0] = Text.assemble(("lag", "bold"), lines[0][3:])
    return lines


def _join(sections: Iterable[list[Text]], gaps: int) -> list[Text]:
    """The lines of all sections that have any, with an empty line between two where there is room."""
    lines: list[Text] = []
    for section in sections:
        lines += [Text()] if lines and section and gaps else []
        lines += section
    return lines


def plain_line(state: ViewState) -> str:
    """The newest step in one line, for logs and pipes; before the first step, what goes on."""
    if not state.records:
        return clean(state.phase)
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
