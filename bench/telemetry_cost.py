"""What telemetry costs: `python -m bench.telemetry_cost --pairs 4`. Needs Prometheus on this machine.

Runs the quick start in pairs, alternately watched and unwatched (A B, B A, ...): watched means that the processes serve
metrics, that Prometheus on this same machine scrapes them every second and evaluates the alert rules as often as
`deploy/prometheus` says, and that a client asks the hub for its status every second, as `rapid top` does. Unwatched
means none of these. The policy stands still (a learning rate next to 0, nothing filtered), so that all runs have the
same work to do. The first steps, in which the engine warms up, are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import psutil

from bench.prometheus_server import PrometheusServer
from protocol.blocking import BlockingClient
from protocol.errors import ProtocolError
from protocol.status import Inspect
from telemetry.errors import RunDirectoryError
from telemetry.run_dir import RunDirectory

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "telemetry_cost.json"
GOAL = 0.02
WARM_UP_STEPS = 3
EVERY_S = 1.0
STILL = ("learner.lr=1e-12", "buffer.filter_zero_signal=false")
RATES = ("steps_per_s", "trained_tokens_per_s", "generated_tokens_per_s")


class Watcher:
    """Asks the hub of a run for its status every second, from when there is one until it is closed."""

    def __init__(self, run: Path) -> None:
        self._run, self._closing = run, threading.Event()
        self.answers = 0
        """Status messages received."""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        client: BlockingClient | None = None
        while not self._closing.wait(EVERY_S):
            with contextlib.suppress(ProtocolError, RunDirectoryError):
                if client is None and (address := RunDirectory.open(self._run).hub_address()):
                    client = BlockingClient(address)
                if client is not None:
                    client.request(Inspect(), 5.0)
                    self.answers += 1
        if client is not None:
            client.close()

    def close(self) -> None:
        """End it."""
        self._closing.set()
        self._thread.join()


@contextlib.contextmanager
def watched(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Prometheus and a watcher around a run of this name; what they did is in the map at the end."""
    done: dict[str, Any] = {}
    with contextlib.closing(PrometheusServer(folder)) as prometheus:
        watcher = Watcher(prometheus.runs / name)
        try:
            yield done
        finally:
            watcher.close()
            times = psutil.Process(prometheus.pid).cpu_times()
            (series,) = prometheus.get("query", query="count(last_over_time({job='rapid'}[1h]))")["result"]
            done |= {"prometheus_cpu_s": times.user + times.system, "series": int(series["value"][1])}
            done["status_answers"] = watcher.answers


def run_once(is_watched: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run; its rates."""
    folder, name = Path(tempfile.mkdtemp(prefix="rapid-bench-")), "run"
    sets = [f"run.directory={folder / 'runs'}", f"schedule.steps={arguments.steps}", *STILL, *arguments.overrides]
    sets.append(f"telemetry.exporter={'true' if is_watched else 'false'}")
    options = [part for value in sets for part in ("--set", value)]
    command = [sys.executable, "-m", "rapid.cli", "train", arguments.recipe, "--run", name, *options]
    try:
        with watched(folder, name) if is_watched else contextlib.nullcontext({}) as done:
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    finally:
        shutil.rmtree(folder)
    return {"watched": is_watched, **rates([json.loads(line) for line in lines]), **done}


def rates(records: list[dict[str, Any]]) -> dict[str, float]:
    """Rates over all steps but the first few."""
    counted, start_s = records[WARM_UP_STEPS:], records[WARM_UP_STEPS - 1]["wall_s"]
    elapsed_s = counted[-1]["wall_s"] - start_s
    walls = [start_s, *(record["wall_s"] for record in counted)]
    generated = sum(
        record["generated_tokens_per_s"] * (after - before)
        for record, before, after in zip(counted, walls, walls[1:], strict=False)
    )
    return {
        "elapsed_s": elapsed_s,
        "steps_per_s": len(counted) / elapsed_s,
        "trained_tokens_per_s": sum(record["tokens_trained"] for record in counted) / elapsed_s,
        "generated_tokens_per_s": generated / elapsed_s,
    }


def compare(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each rate the mean over pairs of watched / unwatched - 1, and its standard error."""
    pairs = [sorted(runs[i : i + 2], key=lambda run: run["watched"]) for i in range(0, len(runs), 2)]
    changes = {rate: [after[rate] / before[rate] - 1 for before, after in pairs] for rate in RATES}
    return {
        rate: {
            "change": fmean(values),
            "standard_error": stdev(values) / len(values) ** 0.5,
        }
        for rate, values in changes.items()
    }


def main() -> None:
    """Run the pairs, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/quickstart.toml")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None:
        parser.exit(2, "prometheus is missing; install it (Debian: apt-get install prometheus)\n")
    if arguments.pairs < 2:
        parser.exit(2, f"--pairs {arguments.pairs}: expected 2 or more, to know how far they agree\n")
    if arguments.steps <= WARM_UP_STEPS:
        parser.exit(2, f"--steps {arguments.steps}: expected more than the {WARM_UP_STEPS} that are left out\n")
    runs = []
    for pair in range(arguments.pairs):
        # The order changes from pair to pair, so that a machine that grows slower favours neither.
        for is_watched in (False, True) if pair % 2 == 0 else (True, False):
            runs.append(run_once(is_watched, arguments))
            print(json.dumps(runs[-1]), flush=True)
    changes = compare(runs)
    write(arguments, runs, changes)
    for rate, change in changes.items():
        print(f"{rate}: {100 * change['change']:+.2f} % ± {100 * change['standard_error']:.2f} when watched")


def write(arguments: argparse.Namespace, runs: list[dict[str, Any]], changes: dict[str, Any]) -> None:
    """Keep the result with what is needed to read it."""
    overrides = "".join(f" --set {override}" for override in arguments.overrides)
    result = {
        "command": f"python -m bench.telemetry_cost --recipe {arguments.recipe} --pairs {arguments.pairs} "
        f"--steps {arguments.steps}{overrides}",
        "goal": f"within {100 * GOAL:g} %",
        "is_within_goal": all(change["change"] >= -GOAL for change in changes.values()),
        "fixed_overrides": STILL,
        "change_when_watched": changes,
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor() or platform.machine()},
        "runs": runs,
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
