"""A run that is scaled 1 → 3 → 1 actors: `python -m bench.scaling`. Needs Prometheus on this machine.

The tiny recipe with the scripted engine, which gives 400 tokens/s whatever the machine; each actor is a process
that starts, fetches its weights over the network and leases from the hub as a real one does. Prometheus scrapes every
second, and what is reported is what the dashboards' own queries return. Writes bench/results/scaling.json and .png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.prometheus_server import PrometheusServer

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "scaling.json"
RUN, WINDOW = "scaled", "5s"
TOKENS_PER_S = 400
LIMIT_S = 180.0
SETS = {
    "actors.engine": "scripted",
    "actors.scripted.tokens_per_s": TOKENS_PER_S,
    "actors.max": 3,
    "schedule.steps": 100000,
    "schedule.max_staleness": 8,
    # The policy stands still, and nothing is filtered: the work is the same throughout.
    "learner.lr": 1e-12,
    "buffer.filter_zero_signal": "false",
    "telemetry.view": "plain",
}


class Bench:
    """The run, and what Prometheus knows of it."""

    def __init__(self, prometheus: PrometheusServer) -> None:
        self._prometheus = prometheus
        self.folder = prometheus.runs / RUN
        sets = [part for name, value in SETS.items() for part in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "rapid.cli", "train", "recipes/tiny.toml", "--run", RUN, *sets]
        self.log = prometheus.runs.parent / "run.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--set", f"run.directory={prometheus.runs}"], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    def panel(self, board: str, title: str, index: int = 0) -> str:
        """The query of a dashboard's panel."""
        path = ROOT / "deploy" / "grafana" / "dashboards" / f"{board}.json"
        panels = json.loads(path.read_text())["panels"]
        panel = next(one for one in panels if one["title"] == title and len(one.get("targets", ())) > index)
        return str(panel["targets"][index]["expr"]).replace("$run", RUN).replace("$window", WINDOW)

    def series(self, query: str, begin_s: float) -> list[tuple[float, float]]:
        """(seconds since `begin_s`, value), one a second, summed over series."""
        data = self._prometheus.get("query_range", query=query, start=begin_s, end=time.time(), step=1)
        sums: dict[float, float] = {}
        for one in data["result"]:
            for moment, value in one["values"]:
                sums[moment] = sums.get(moment, 0.0) + float(value)
        return [(moment - begin_s, value) for moment, value in sorted(sums.items())]

    def scale(self, number: int) -> float:
        """`rapid scale actors`; the moment of the order."""
        began_s = time.time()
        subprocess.run(
            [sys.executable, "-m", "rapid.cli", "scale", "actors", str(number), str(self.folder)],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return began_s

    def wait(self, holds: Callable[[], bool], what: str) -> float:
        """Until it holds; the moment. Raises RuntimeError when the run ends or the time is over before."""
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no {what}; the run said:\n{self.log.read_text()}")
            time.sleep(0.2)
        return time.time()

    def close(self) -> None:
        """End the run as Ctrl-C does, if it goes on. Raises RuntimeError if it does not end well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        if self.process.wait(LIMIT_S) != 0:
            raise RuntimeError(f"the run ended with {self.process.returncode}:\n{self.log.read_text()}")

    def loaded(self, actor: str) -> bool:
        """Whether this actor has weights."""
        log = self.folder / "logs" / f"{actor}.log"
        return log.exists() and "loaded weights" in log.read_text()


def measure(bench: Bench, hold_s: float) -> dict[str, Any]:
    """Scale up and down, holding each number of actors for a time."""
    bench.wait(lambda: bench.loaded("actor-0"), "weights in the first actor")
    begin_s = time.time()
    time.sleep(hold_s)
    up_s = bench.scale(3)
    started_s = bench.wait(lambda: bench.loaded("actor-1") and bench.loaded("actor-2"), "weights in new actors")
    time.sleep(hold_s)
    down_s = bench.scale(1)
    left_s = bench.wait(lambda: bench.log.read_text().count("has left") == 2, "actors that left")
    time.sleep(hold_s)
    tokens = bench.series(bench.panel("throughput", "Tokens a second by actor"), begin_s)
    running = bench.series(bench.panel("health", "Actors", 1), begin_s)
    bench.close()
    return {
        "marks_s": {
            "asked_for_3": up_s - begin_s,
            "three_have_weights": started_s - begin_s,
            "asked_for_1": down_s - begin_s,
            "two_have_left": left_s - begin_s,
        },
        "tokens_per_s": [[round(second, 1), round(value, 1)] for second, value in tokens],
        "actors_running": [[round(second, 1), value] for second, value in running],
        **what_is_left(bench.folder),
    }


def what_is_left(folder: Path) -> dict[str, Any]:
    """What the run's folder says of prompts and of the learner's lives."""
    state = json.loads((folder / "ledger" / "state.json").read_text())
    starts = (folder / "timeline" / "learner-0.jsonl").read_text().count('"pid":')
    events = state["events"]
    ledger = subprocess.run(
        [sys.executable, "-m", "rapid.cli", "ledger", str(folder)], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return {
        "ledger_adds_up": "adds up" in ledger,
        "leases_lost": events.get("leases_lost", 0),
        "leases_expired": events.get("leases_expired", 0),
        "dead_letters": events.get("dead_letters", 0),
        "learner_starts": starts,
    }


def level(series: list[list[float]], begin_s: float, end_s: float) -> float:
    """Mean of a series between two moments, less the window that a rate looks back."""
    return fmean(value for second, value in series if begin_s + int(WINDOW[:-1]) <= second <= end_s)


def follow_s(series: list[list[float]], begin_s: float, target: float, rises: bool) -> float:
    """Seconds from `begin_s` until the series has passed `target`."""
    passed = (second for second, value in series if second >= begin_s and (value >= target) == rises)
    return next(passed) - begin_s


def summarise(found: dict[str, Any]) -> dict[str, Any]:
    """Levels of tokens/s with one, three and one actor, and how soon each was reached."""
    marks, series = found["marks_s"], found["tokens_per_s"]
    one = level(series, 0.0, marks["asked_for_3"])
    three = level(series, marks["three_have_weights"], marks["asked_for_1"])
    again = level(series, marks["two_have_left"], series[-1][0])
    return {
        "tokens_per_s_with_1": one,
        "tokens_per_s_with_3": three,
        "tokens_per_s_with_1_again": again,
        "three_to_one": three / one,
        "start_of_two_actors_s": marks["three_have_weights"] - marks["asked_for_3"],
        "tokens_follow_up_s": follow_s(series, marks["asked_for_3"], one + 0.9 * (three - one), True),
        "leaving_of_two_actors_s": marks["two_have_left"] - marks["asked_for_1"],
        "tokens_follow_down_s": follow_s(series, marks["asked_for_1"], again + 0.1 * (three - again), False),
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Tokens/s and actors over time, with the orders as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (top, bottom) = plt.subplots(
        2, 1, sharex=True, figsize=(8, 4.5), height_ratios=(3, 1), layout="constrained"
    )
    top.plot(*zip(*found["tokens_per_s"], strict=True), color="#0067b1")
    top.set_ylabel("tokens/s, as on the dashboard")
    bottom.step(*zip(*found["actors_running"], strict=True), where="post", color="#d27b00")
    bottom.set(ylabel="actors", xlabel="seconds", ylim=(0, 3.5))
    for name in ("asked_for_3", "asked_for_1"):
        for axis in (top, bottom):
            axis.axvline(found["marks_s"][name], color="#888888", linestyle=":")
        top.annotate(f"rapid scale actors {name[-1]}", (found["marks_s"][name] + 0.5, 0), color="#666666")
    top.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hold", type=float, default=40.0, help="seconds that each number of actors is held")
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None:
        parser.exit(2, "prometheus is missing; install it (Debian: apt-get install prometheus)\n")
    folder = Path(tempfile.mkdtemp(prefix="rapid-bench-"))
    try:
        with (
            contextlib.closing(PrometheusServer(folder)) as prometheus,
            contextlib.closing(Bench(prometheus)) as bench,
        ):
            found = measure(bench, arguments.hold)
    finally:
        shutil.rmtree(folder)
    summary = summarise(found)
    draw(found, RESULT.with_suffix(".png"))
    command = f"python -m bench.scaling --hold {arguments.hold:g}"
    RESULT.write_text(json.dumps({"command": command, "summary": summary, **found}, indent=1) + "\n")
    for name, value in summary.items():
        print(f"{name:28} {value:8.1f}")
    print({name: found[name] for name in ("ledger_adds_up", "leases_lost", "dead_letters", "learner_starts")})


if __name__ == "__main__":
    main()
