"""Files of one JSON object a line, which a crash may leave with a torn last line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def encode_line(value: dict[str, Any]) -> bytes:
    """One line. Raises ValueError for numbers that JSON does not know."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def cut_torn_line(path: Path) -> None:
    """Remove what follows the last whole line, so that appending begins a new one; nothing without a file."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file's whole lines, for files that only explain a run: what is damaged is left out and logged.

    Empty for a file that is not there.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    found, num_damaged = [], 0
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            value = json.loads(line, parse_constant=_refuse)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            num_damaged += 1
    if num_damaged:
        log.warning("%s: %d damaged lines are left out", path, num_damaged)
    return found
