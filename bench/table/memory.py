"""Peak memory of a run: proportional set size (PSS) over all its processes, sampled while it goes on.

Resident memory would count pages that processes share once for each of them; PSS divides them. A process belongs to the
run if it carries the run's mark in its environment: Ray's own processes are no children of `rapid train` for long.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

MARK = "RAPID_TABLE_RUN"
EVERY_S = 10.0
"""To read the PSS of twelve processes of 6.6 GiB takes 0.14 s of a core, so that this costs 1.4 % of one."""
LEARNER, ENGINE, ACTOR, OTHER = "learner", "engine", "actor", "other"


class MemorySampler:
    """Samples from `start` to `stop` in a thread; `peaks` then has bytes by part and the "total".

    The total is the largest sum of one moment, so that it is not above the sum of the parts' own peaks.
    """

    def __init__(self, mark: str, every_s: float = EVERY_S) -> None:
        self._mark, self._every_s = mark, every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rapid-memory", daemon=True)
        self.peaks: dict[str, int] = {}

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """End; the peaks."""
        self._closing.set()
        self._thread.join()
        return self.peaks

    def _run(self) -> None:
        while not self._closing.wait(self._every_s):
            found = find_processes(self._mark)
            update_peaks(self.peaks, sum_by_part((part, read_pss(pid)) for pid, part in found.items()))


def find_processes(mark: str) -> dict[int, str]:
    """Process ids of the run with the part that each is."""
    found = {}
    for process in psutil.process_iter():
        # A process that ends meanwhile or belongs to somebody else is none of ours.
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found[process.pid] = part_of(" ".join(process.cmdline()))
    return found


def part_of(title: str) -> str:
    """Which part of a run a process is, by the title that Ray or vLLM gives it."""
    if "LearnerPart" in title:
        return LEARNER
    if "EngineCore" in title or "VLLM::" in title:
        return ENGINE
    return ACTOR if "ActorPart" in title else OTHER


def read_pss(pid: int) -> int:
    """Bytes; 0 for a process that is gone, or that may not be read."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def sum_by_part(samples: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Bytes of one moment by part, and their "total"."""
    sums: dict[str, int] = {"total": 0}
    for part, size in samples:
        sums[part] = sums.get(part, 0) + size
        sums["total"] += size
    return sums


def update_peaks(peaks: dict[str, int], sums: Mapping[str, int]) -> None:
    """Raise each peak to what was just seen."""
    for part, size in sums.items():
        peaks[part] = max(peaks.get(part, 0), size)


def merge_peaks(lives: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Peaks over the lives of a run."""
    merged: dict[str, int] = {}
    for peaks in lives:
        update_peaks(merged, peaks)
    return merged
