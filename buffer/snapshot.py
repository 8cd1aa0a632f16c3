"""The state of the buffer as plain data: in a checkpoint, and in `ledger/state.json` of a run's folder.

Groups are not in it: what was leased, buffered or pulled is ready again in the run that goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from buffer.errors import LedgerError

FORMAT = 1


class MachineSnapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `Machine.snapshot` gives."""

    format: int = FORMAT
    version: tuple[int, int]
    """(incarnation, step) that is committed."""
    branch_steps: list[int]
    """Of the lineage."""
    settled_step: int
    events: dict[str, int]
    ledger: dict[str, Any]
    """See LedgerSnapshot."""

    def to_plain(self) -> dict[str, object]:
        """Only maps with text keys, lists, text, numbers and None."""
        plain: dict[str, object] = msgspec.to_builtins(self)
        plain["version"] = list(self.version)
        return plain


def parse_snapshot(state: Mapping[str, object]) -> MachineSnapshot:
    """Read what `to_plain` wrote. Raises LedgerError."""
    try:
        snapshot = msgspec.convert(state, MachineSnapshot)
    except msgspec.ValidationError as error:
        raise LedgerError(f"this is not a saved state of the buffer: {error}") from error
    if snapshot.format != FORMAT:
        raise LedgerError(f"the saved state has format {snapshot.format}, this version of Rapid reads {FORMAT}")
    return snapshot
