"""Where every prompt is: the ledger's state as a file, and as the table that `rapid ledger` prints."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buffer.compact import STATES, decode_states
from buffer.errors import LedgerError
from buffer.ledger import DeadLetter, parse_ledger
from buffer.snapshot import parse_snapshot
from buffer.states import TERMINAL, State
from protocol.version import PolicyVersion

STATE_PATH = Path("ledger") / "state.json"
"""Within a run's folder."""
_SHOWN_LETTERS = 10


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """Counts of a saved ledger."""

    counts: dict[State, int]
    """As saved."""
    found: dict[State, int]
    """As counted anew over all entries."""
    opened: int
    total: int | None
    dead_letters: list[DeadLetter]
    events: dict[str, int]
    version: PolicyVersion

    @property
    def adds_up(self) -> bool:
        """Whether every entry is in exactly one state and none is missing."""
        return self.counts == self.found and sum(self.counts.values()) == self.opened

    @property
    def num_ended(self) -> int:
        """Entries in a terminal state."""
        return sum(self.counts[state] for state in TERMINAL)


def write_state(run_dir: Path, state: Mapping[str, object]) -> None:
    """Write what `Machine.snapshot` gave to the run's folder, atomically."""
    path = run_dir / STATE_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(state), encoding="utf-8")
    os.replace(temporary, path)


def read_state(run_dir: Path) -> dict[str, Any]:
    """The state in a run's folder. Raises LedgerError."""
    path = run_dir / STATE_PATH
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path} cannot be read ({error}); expected the folder of a run") from error
    if not isinstance(state, dict):
        raise LedgerError(f"{path} holds {type(state).__name__}, expected the state of a ledger")
    return state


def summarise(state: Mapping[str, object]) -> LedgerSummary:
    """Count a saved state. Raises LedgerError when it is damaged; a sum that does not add up is in the summary."""
    snapshot = parse_snapshot(state)
    ledger = parse_ledger(snapshot.ledger)
    tally = Counter(decode_states(ledger.states))
    return LedgerSummary(
        counts={state: ledger.counts.get(state.value, 0) for state in STATES},
        found={state: tally[code] for code, state in enumerate(STATES)},
        opened=ledger.opened,
        total=ledger.total,
        dead_letters=ledger.dead_letters,
        events=snapshot.events,
        version=PolicyVersion(*snapshot.version),
    )


def ledger_table(state: Mapping[str, object]) -> str:
    """The table of a saved state, with the sum that must add up. Raises LedgerError when it is damaged."""
    summary = summarise(state)
    width = max(len(str(summary.opened)), 5)
    lines = [f"ledger at version {summary.version}", ""]
    for name, count in summary.counts.items():
        lines.append(f"  {name.value:<12} {count:>{width}}{'  ended' if name in TERMINAL else ''}")
    lines += [f"  {'':-<{13 + width}}", f"  {'sum':<12} {sum(summary.counts.values()):>{width}}"]
    verdict = "the sum adds up" if summary.adds_up else "THE SUM DOES NOT ADD UP"
    lines.append(f"  {'opened':<12} {summary.opened:>{width}}  {verdict}")
    if summary.total is not None:
        lines.append(f"  {'of':<12} {summary.total:>{width}}")
    return "\n".join(lines + _describe_losses(summary)) + "\n"


def _describe_losses(summary: LedgerSummary) -> list[str]:
    """Why prompts were dropped, generated again, or became dead letters."""
    lines = [""] if summary.events or summary.dead_letters else []
    lines += [f"  {name:<24} {count}" for name, count in sorted(summary.events.items()) if count]
    for letter in summary.dead_letters[:_SHOWN_LETTERS]:
        lines.append(f"  dead letter {letter.entry_id} after {letter.attempts} attempts: {letter.reason}")
    if len(summary.dead_letters) > _SHOWN_LETTERS:
        lines.append(f"  and {len(summary.dead_letters) - _SHOWN_LETTERS} more dead letters")
    return lines
