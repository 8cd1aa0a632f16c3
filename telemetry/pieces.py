"""Small pieces of text that the terminal view is put together from."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

LABEL = 11
"""Columns of the word that begins a line."""
_CONSOLE = Console(width=80)
"""Breaking lines takes one; nothing is printed on it."""
_EIGHTHS = " ▏▎▍▌▋▊▉"


def label(name: str) -> Text:
    """The bold word that begins a line, padded."""
    return Text.assemble((f"{name[: LABEL - 1]:<{LABEL}}", "bold"))


def percent(share: float | None) -> str:
    """`"13 %"`; a dash for None."""
    return "–" if share is None else f"{100 * share:.0f} %"


def fit(text: Text, width: int) -> Text:
    """The text in exactly `width` columns: padded, or cut with an ellipsis."""
    fitted = text.copy()
    fitted.truncate(width, overflow="ellipsis", pad=True)
    return fitted


def named_values(name: str, **values: str) -> Text:
    """A label and values with their names before them."""
    text = label(name)
    for key, value in values.items():
        text.append(f"{key} ", style="dim").append(f"{value}  ")
    return text


def flow(pieces: Sequence[Text], width: int) -> list[Text]:
    """The pieces beside each other, broken into indented lines where they do not fit."""
    lines = [label("")]
    for piece in pieces:
        if lines[-1].cell_len > LABEL and lines[-1].cell_len + piece.cell_len > width:
            lines.append(label(""))
        lines[-1].append_text(piece).append("  ")
    for line in lines:
        line.rstrip()
    return lines


def wrapped(name: str, text: Text, width: int, most: int = 2) -> list[Text]:
    """A label and a text beside it, broken between words into at most so many lines."""
    rows = text.wrap(_CONSOLE, max(width - LABEL, 1))
    lines = [label(name if not number else "").append_text(row) for number, row in enumerate(rows[:most])]
    if len(rows) > most:
        lines[-1] = fit(lines[-1], width - 2).append(" …")
    return lines


def stacked_bar(parts: Sequence[tuple[float, str]], width: int) -> Text:
    """A bar of coloured stretches, (amount, style) each; what is not zero gets a cell, if there are so many."""
    parts = [(amount, style) for amount, style in parts if amount > 0][:width]
    total = sum(amount for amount, _ in parts)
    cells = [max(round(width * amount / total), 1) for amount, _ in parts]
    while cells and sum(cells) != width:
        cells[cells.index(max(cells))] += 1 if sum(cells) < width else -1
    return Text.assemble(*(("█" * count, style) for count, (_, style) in zip(cells, parts, strict=True)))


def bar(share: float, width: int, style: str) -> Text:
    """A bar of one colour with eighths of cells, `width` columns wide, filled to `share` of 1."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return Text(("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width), style=style)


def beside(left: Sequence[Text], right: Sequence[Text], left_width: int, gap: int = 3) -> list[Text]:
    """Two columns of lines; the left one is padded to its width."""
    lines = []
    for row in range(max(len(left), len(right))):
        line = fit(left[row] if row < len(left) else Text(), left_width)
        lines.append(line.append(" " * gap).append_text(right[row]) if row < len(right) else line)
    return lines
