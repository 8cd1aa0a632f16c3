"""Lean's text without its comments."""

from __future__ import annotations

import re

OUTSIDE = re.compile(r'"(?:\\.|[^"\\])*"|--[^\n]*|/-', re.DOTALL)
INSIDE = re.compile(r"/-|-/")


def strip_comments(text: str) -> str | None:
    """The text with a space for each comment; they nest. None when one is not closed.

    Whoever searches the result and then hands just it to Lean has seen all that Lean sees, even where this reads a
    literal otherwise than Lean does.
    """
    parts, position = [], 0
    while match := OUTSIDE.search(text, position):
        parts.append(text[position : match.start()])
        position = match.end()
        if match[0].startswith('"'):
            parts.append(match[0])
            continue
        parts.append(" ")
        if match[0] == "/-":
            end = find_end(text, position)
            if end is None:
                return None
            position = end
    return "".join([*parts, text[position:]])


def find_end(text: str, position: int) -> int | None:
    """Where the comment ends that began just before `position`."""
    depth = 1
    for mark in INSIDE.finditer(text, position):
        depth += 1 if mark[0] == "/-" else -1
        if depth == 0:
            return mark.end()
    return None
