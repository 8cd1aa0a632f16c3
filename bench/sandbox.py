"""How many programs the sandbox checks a second: `python -m bench.sandbox`.

The same checks in three ways, one after the other in one run: the warm sandbox with bubblewrap, the warm sandbox
without, and, for comparison, a cold bubblewrap that starts a Python for each check, runs program and tests in it and
believes its exit status. One checker and two at a time, as there are two cores; the programs are the records' own.
`cpu_ms_a_check` is processor time without this process's own, which other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tasks.code.problems import FORMATS
from tasks.jsonl import read_rows
from tasks.sandbox import Limits, Sandbox, Suite, WayName, choose

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "sandbox.json"
DATA = ROOT / "tests" / "tasks" / "data"
CHECKERS = 2
LIMITS = Limits(time_s=20.0)


class Cold:
    """A bubblewrap and a Python for each check. The verdict is one that the program can forge."""

    def check(self, row: dict[str, Any]) -> bool:
        tests = "\n".join(row["test_list"])
        program = f"{FORMATS['mbpp'].solution(row)}\n{tests}"
        command = choose("bubblewrap").command(["-c", program])
        done = subprocess.run(command, capture_output=True, env={}, timeout=LIMITS.time_s, check=False)
        return done.returncode == 0

    def cpu_s(self) -> float:
        """Not known: bubblewrap does not wait for all that it starts."""
        return math.nan

    def close(self) -> None:
        pass


class Warm:
    """The sandbox."""

    def __init__(self, way: WayName) -> None:
        self._sandbox, self._form = Sandbox(LIMITS, way), FORMATS["mbpp"]
        self._suites: dict[int, Suite] = {}

    def check(self, row: dict[str, Any]) -> bool:
        number = row["task_id"]
        if number not in self._suites:
            self._suites[number] = self._form.suite(row, f"problem {number}")
        return self._sandbox.check(self._form.solution(row), self._suites[number]).passed

    def cpu_s(self) -> float:
        """Processor time of the sandbox's processes, those that have ended included."""
        zygote = self._sandbox._running
        assert zygote is not None
        root = psutil.Process(zygote._process.pid)
        total = 0.0
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
        return total

    def close(self) -> None:
        self._sandbox.close()


def time_checks(rows: list[dict[str, Any]], checker: Cold | Warm, seconds: float) -> list[float]:
    """Seconds of each check, for about so many seconds in all. Every program must pass."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        row = rows[len(times) % len(rows)]
        start = time.perf_counter()
        assert checker.check(row), f"problem {row['task_id']} did not pass"
        times.append(time.perf_counter() - start)
    return times


def measure(name: str, rows: list[dict[str, Any]], seconds: float, checkers: int) -> dict[str, Any]:
    """Checks a second of so many checkers at a time, how long one takes, and what it costs."""

    def work(_: int) -> tuple[list[float], float, float]:
        checker = Cold() if name == "cold" else Warm(name)  # type: ignore[arg-type]
        try:
            time_checks(rows, checker, 0.5)  # starts what is warm
            start, cpu = time.monotonic(), checker.cpu_s()
            times = time_checks(rows, checker, seconds)
            return times, time.monotonic() - start, checker.cpu_s() - cpu
        finally:
            checker.close()

    with ThreadPoolExecutor(checkers) as pool:
        results = list(pool.map(work, range(checkers)))
    times = sorted(each for part, _, _ in results for each in part)
    cpu = sum(cpu for _, _, cpu in results)
    return {
        "checks": len(times),
        "checks_per_s": round(sum(len(part) / wall for part, wall, _ in results), 1),
        "median_ms": round(1000 * statistics.median(times), 2),
        "p95_ms": round(1000 * times[int(0.95 * len(times))], 2),
        "cpu_ms_a_check": None if math.isnan(cpu) else round(1000 * cpu / len(times), 2),
    }


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = [row for row in read_rows(DATA / "mbpp.jsonl") if not row["test_setup_code"]]
    load_before = os.getloadavg()[0]
    found: dict[str, Any] = {}
    for name in ("bubblewrap", "process", "cold"):
        for checkers in (1, CHECKERS):
            key = f"{name}, {checkers} at a time"
            found[key] = measure(name, rows, arguments.seconds, checkers)
            print(f"{key:28} {found[key]}", flush=True)
    warm, cold = (found[f"{name}, {CHECKERS} at a time"]["checks_per_s"] for name in ("bubblewrap", "cold"))
    result = {
        "command": "python -m bench.sandbox",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_average_before": round(load_before, 1),
        "records": f"{len(rows)} of MBPP, three assertions each, with their own programs",
        "ways": found,
        "load_average_after": round(os.getloadavg()[0], 1),
        "warm_over_cold": round(warm / cold, 2),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"warm / cold: {result['warm_over_cold']}")


if __name__ == "__main__":
    main()
