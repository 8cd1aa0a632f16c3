"""Small curves out of characters: braille for several rows, blocks for one."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_BLANK = 0x2800
# Bits of a braille character by row from the top, for its left and its right column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))

Values = Sequence[float | None]


def smooth(values: Values, window: int = 5) -> list[float | None]:
    """Trailing mean of up to `window` values; None where none of them is known."""
    if None not in values:
        # The same without a look at each value: a long run is drawn anew every second.
        known: Sequence[float] = values  # type: ignore[assignment]
        return [sum(known[max(0, end - window) : end]) / min(end, window) for end in range(1, len(known) + 1)]
    return [_mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]


def resample(values: Values, width: int) -> list[float | None]:
    """Exactly `width` values: means of equal stretches, or straight lines between neighbours where there are fewer.

    None where nothing is known.
    """
    if not values:
        return [None] * width
    if len(values) >= width:
        return [_mean(values[i * len(values) // width : (i + 1) * len(values) // width]) for i in range(width)]
    stride = (len(values) - 1) / max(width - 1, 1)
    return [_interpolate(values, column * stride) for column in range(width)]


def _mean(values: Values) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _interpolate(values: Values, place: float) -> float | None:
    left = math.floor(place)
    share = place - left
    start, end = values[left], values[min(left + 1, len(values) - 1)]
    # A value alone among gaps is a dot of its own, not nothing.
    if start is None or end is None:
        return start if share < 0.5 else end
    return start + share * (end - start)


def sparkline(values: Values, low: float, high: float) -> str:
    """One row of blocks, a character for each value."""
    cells = []
    for value in values:
        share = 0.0 if value is None else _share(value, low, high)
        cells.append(" " if value is None else _BLOCKS[min(int(share * len(_BLOCKS)), len(_BLOCKS) - 1)])
    return "".join(cells)


def braille_curve(values: Values, width: int, height: int, low: float, high: float) -> list[str]:
    """A line through the values, in `height` rows of `width` characters of two by four dots each."""
    rows = [[0] * width for _ in range(height)]
    top, previous = 4 * height - 1, None
    for column, value in enumerate(resample(values, 2 * width)):
        if value is None:
            previous = None
            continue
        level = round(_share(value, low, high) * top)
        for dot in _between(previous, level):
            row, inner = divmod(top - dot, 4)
            rows[row][column // 2] |= _DOTS[inner][column % 2]
        previous = level
    return ["".join(chr(_BLANK + bits) if bits else " " for bits in row).rstrip() for row in rows]


def nice_limits(values: Values) -> tuple[float, float]:
    """Limits of an axis for these values: 0 belongs to it, and its ends are round."""
    known = [value for value in values if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    # Powers of ten end above the smallest numbers there are.
    if high - low < 1e-300:
        return low, low + 1.0
    step = 10.0 ** math.floor(math.log10(high - low))
    if (high - low) / step < 4:
        step /= 5
    return math.floor(round(low / step, 6)) * step, math.ceil(round(high / step, 6)) * step


def _share(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _between(previous: int | None, level: int) -> range:
    """The dots of one column: from beside the previous level up or down to this one, so that the line is whole."""
    if previous is None or previous == level:
        return range(level, level + 1)
    return range(previous + 1, level + 1) if level > previous else range(level, previous)
