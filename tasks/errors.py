"""The one error of this package, and how it proposes the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NAMES_SHOWN = 6


class TaskError(Exception):
    """The task cannot be used as configured. The text says what was got, what was expected and the remedy."""


class UnreachableError(TaskError):
    """The data set could not be looked up, because its hub cannot be reached. It may well exist."""


def describe_options(got: str, options: Iterable[str]) -> str:
    """The names nearest to `got`, or the first few when none is near, for the end of an error message."""
    known = sorted(options)
    near = difflib.get_close_matches(got, known, n=3, cutoff=0.5)
    if near:
        return "nearest: " + ", ".join(near)
    shown = ", ".join(known[:NAMES_SHOWN])
    return f"available: {shown}" + (f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else "")
