"""The learner's step records, kept for those who watch a run from where its metrics.jsonl is not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from protocol.errors import RefusedError
from telemetry.errors import RecordError
from telemetry.record import Record, check_record, encode_record

MAX_RECORDS = 2000
MAX_BYTES = 8 * 2**20
"""Of all records together, as JSON: half of what a message may carry."""
MAX_RECORD_BYTES = 2**18


class RecordBook:
    """The newest records, numbered in the order in which they came."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Record, int]] = deque()
        self._num_bytes = 0
        self.count = 0
        """Records that were ever given."""

    def add(self, records: Iterable[Record]) -> None:
        """Keep these, and forget the oldest beyond the limits. Refuses "bad_record"; those before it are kept."""
        for record in records:
            self._add_one(record)

    def after(self, position: int) -> list[Record]:
        """Those kept that came after the first `position`; all, if there never were so many."""
        num_wanted = self.count - position if position <= self.count else self.count
        skipped = max(len(self._kept) - num_wanted, 0)
        return [record for record, _ in list(self._kept)[skipped:]]

    def _add_one(self, record: Record) -> None:
        try:
            checked = check_record(record)
        except RecordError as error:
            raise RefusedError("bad_record", str(error)) from None
        size = len(encode_record(checked))
        if size > MAX_RECORD_BYTES:
            raise RefusedError(
                "bad_record", f"record of step {checked['step']} has {size} bytes, at most {MAX_RECORD_BYTES} are kept"
            )
        self._kept.append((checked, size))
        self._num_bytes += size
        self.count += 1
        while len(self._kept) > MAX_RECORDS or self._num_bytes > MAX_BYTES:
            self._num_bytes -= self._kept.popleft()[1]
