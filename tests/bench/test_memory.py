"""Peak memory: which process is which part, and what a peak is."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.table.memory import (
    MARK,
    MemorySampler,
    find_processes,
    merge_peaks,
    part_of,
    read_pss,
    sum_by_part,
    update_peaks,
)


def test_processes_are_told_apart_by_their_titles() -> None:
    titles = ["ray::LearnerPart.run", "VLLM::EngineCore", "ray::ActorPart", "raylet --port 1"]
    assert [part_of(title) for title in titles] == ["learner", "engine", "actor", "other"]


def test_the_total_is_the_largest_sum_of_one_moment() -> None:
    peaks: dict[str, int] = {}
    update_peaks(peaks, sum_by_part([("learner", 5), ("engine", 1), ("engine", 1)]))
    update_peaks(peaks, sum_by_part([("learner", 1), ("engine", 4)]))
    assert peaks == {"learner": 5, "engine": 4, "total": 7}
    assert merge_peaks([peaks, {"total": 9}, {}]) == {"learner": 5, "engine": 4, "total": 9}


def test_a_process_that_carries_the_mark_is_measured_and_its_children_too() -> None:
    mark = f"test-{os.getpid()}"
    # 50 MiB that are written to, in a child of the marked process.
    child = "import time; held = bytearray(b'x') * (50 * 2**20); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], env={**os.environ, MARK: mark})
    sampler = MemorySampler(mark, every_s=0.05)
    try:
        sampler.start()
        deadline = time.monotonic() + 20
        while sampler.peaks.get("total", 0) < 50 * 2**20 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(find_processes(mark)) == 2
        assert 50 * 2**20 <= sampler.stop()["total"] < 120 * 2**20
    finally:
        for pid in find_processes(mark):
            os.kill(pid, 9)
        process.wait()


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert read_pss(2**22 + 1) == 0
