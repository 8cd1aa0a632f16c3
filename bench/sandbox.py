"""How many programs the sandbox checks a second: `python -m bench.sandbox`.

The same checks in three ways, one after the other in one run: the warm sandbox with bubblewrap, the warm sandbox
without, and, for comparison, a cold bubblewrap that starts a Python for each check, runs program and tests in it and
believes its exit status. One checker and two at a time, as there are two cores; the programs are the records' own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tasks.code.problems import FORMATS
from tasks.jsonl import read_rows
from tasks.sandbox import Limits, Sandbox, Suite, WayName, choose

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "sandbox.json"
DATA = ROOT / "tests" / "tasks" / "data"
CHECKERS = 2
LIMITS = Limits(time_s=20.0)
Check = Callable[[dict[str, Any]], bool]


def cold_check(row: dict[str, Any]) -> bool:
    """One check as it is done without a pool. The verdict is one that the program can forge."""
    form = FORMATS["mbpp"]
    tests = "\n".join(row["test_list"])
    command = choose("bubblewrap").command(["-c", f"{row.get('test_setup_code', '')}\n{form.solution(row)}\n{tests}"])
    done = subprocess.run(command, capture_output=True, env={}, timeout=LIMITS.time_s, check=False)
    return done.returncode == 0


def warm_check(way: WayName) -> tuple[Check, Callable[[], None]]:
    """A warm sandbox's check, and what closes it."""
    sandbox, form = Sandbox(LIMITS, way), FORMATS["mbpp"]
    suites: dict[int, Suite] = {}

    def check(row: dict[str, Any]) -> bool:
        number = row["task_id"]
        if number not in suites:
            suites[number] = form.suite(row, f"problem {number}")
        return sandbox.check(form.solution(row), suites[number]).passed

    return check, sandbox.close


def time_checks(rows: list[dict[str, Any]], check: Check, seconds: float) -> list[float]:
    """Seconds of each check, for about so many seconds in all. Every program must pass."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        row = rows[len(times) % len(rows)]
        start = time.perf_counter()
        assert check(row), f"record {row['task_id']} did not pass"
        times.append(time.perf_counter() - start)
    return times


def measure(name: str, rows: list[dict[str, Any]], seconds: float, checkers: int) -> dict[str, Any]:
    """Checks a second of so many checkers at a time, and how long one takes."""

    def work(_: int) -> tuple[list[float], float]:
        check, close = (cold_check, lambda: None) if name == "cold" else warm_check(name)  # type: ignore[arg-type]
        try:
            time_checks(rows, check, 0.5)  # starts what is warm
            start = time.monotonic()
            return time_checks(rows, check, seconds), time.monotonic() - start
        finally:
            close()

    with ThreadPoolExecutor(checkers) as pool:
        results = list(pool.map(work, range(checkers)))
    times = sorted(each for part, _ in results for each in part)
    return {
        "checks": len(times),
        "checks_per_s": round(sum(len(part) / wall for part, wall in results), 1),
        "median_ms": round(1000 * statistics.median(times), 2),
        "p95_ms": round(1000 * times[int(0.95 * len(times))], 2),
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
        "warm_over_cold": round(warm / cold, 2),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"warm / cold: {result['warm_over_cold']}")


if __name__ == "__main__":
    main()
