"""How far a run has come: a small file beside its folder, so that an interruption costs only what was under way.

    (no file)     not begun
    training      `rapid train` was started; if nothing runs any more, it was cut off
    trained       it ended by itself; what remains is the evaluation of its snapshots
    (a result)    the run has ended and is never repeated

Each start of `rapid train` is a life. A run of several lives says so in its result: its clock is the sum of
theirs.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rapid.errors import UsageError
from telemetry.run_dir import write_atomically


@dataclass
class Life:
    """One start of `rapid train`."""

    started: str
    """Local time."""
    how: str
    """"begun", "resumed" from a checkpoint, or "begun anew" after one that left none."""
    load_before: float
    """Load average of the machine over the minute before; where runs follow one another, that of the run before."""
    command_s: float | None = None
    """Seconds of the whole command; None if it was cut off."""
    status: int | None = None
    """Its exit status."""
    memory: dict[str, int] = field(default_factory=dict)
    """Peaks in bytes, see bench.table.memory."""


@dataclass
class State:
    """The lives of a run, and whether its training has ended."""

    is_trained: bool = False
    lives: list[Life] = field(default_factory=list)
    failures: int = 0
    """Commands that ended with an error of their own."""
    eval_s: float = 0.0
    """Seconds of the evaluation of its snapshots, all lives together."""
    asked: dict[str, Any] | None = None
    """What it was begun with, see bench.table.asked; None before."""

    def begin(self, how: str) -> Life:
        """A new life."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self.lives.append(Life(now, how, round(os.getloadavg()[0], 2)))
        return self.lives[-1]

    def write(self, path: Path) -> None:
        """Keep it. What was there before is replaced as a whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")


def read_state(path: Path) -> State:
    """The state of a run; a new one where there is no file. Raises UsageError where it cannot be read."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lives = [Life(**life) for life in values.pop("lives")]
        return State(lives=lives, **values)
    except FileNotFoundError:
        return State()
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is damaged: {error!r}; delete it, and the run is begun anew") from None
