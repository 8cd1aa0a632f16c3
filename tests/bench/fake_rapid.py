"""A scripted `rapid`, run as a program: leaves behind what `rapid train` and `rapid eval` leave, in no time.

FAKE_STEP_S is how long a step takes to be written, FAKE_TRAIN a word for a fault: "fail", "diverge", "killed" (dies
without a checkpoint at step 3, the first time), "ended" (at step 7, as by somebody else's Ctrl-C), "unwritten" (the
snapshot of step 10). Step times and rewards follow the arm: `alternate` is twice as fast.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from telemetry.record import KEYS

STARTED_S = 1_000_000.0


def read_sets(arguments: list[str]) -> dict[str, Any]:
    """The configuration that the `--set` options make."""
    config: dict[str, Any] = {"actors": {"group_size": 8}, "learner": {"batch_groups": 8}}
    for flag, override in itertools.pairwise(arguments):
        if flag == "--set":
            key, _, text = override.partition("=")
            section, name = key.split(".", 1)
            config.setdefault(section, {})[name] = tomllib.loads(f"value = {text}")["value"]
    return config


def train(arguments: list[str]) -> int:
    """Write a run's folder, step by step; a first Ctrl-C ends it with a checkpoint."""
    config = read_sets(arguments)
    run = Path(config["run"]["directory"]) / arguments[arguments.index("--run") + 1]
    is_resumed = "--resume" in arguments
    run.mkdir(parents=True, exist_ok=is_resumed)
    (run / "config.json").write_text(json.dumps(config))
    (run / "timeline").mkdir(exist_ok=True)
    stops: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stops.append(number))
    done = [json.loads(line) for line in _lines(run / "metrics.jsonl")]
    first, incarnation = len(done) + 1, 1 + (done[-1]["incarnation"] if done else 0)
    step_s = 1.0 if config["schedule"]["mode"] == "alternate" else 2.0
    fault = os.environ.get("FAKE_TRAIN", "")
    last = first - 1
    for step in range(first, config["schedule"]["steps"] + 1):
        _write_step(run, step, incarnation, (step - first + 1) * step_s)
        last = step
        time.sleep(float(os.environ.get("FAKE_STEP_S", "0")))
        if fault == "fail":
            return 1
        if fault == "diverge" and step == 12:
            (run / "learner-failure.json").write_text("{}")
            return 1
        if fault == "killed" and step == 3 and not (run.parent / "was-killed").exists():
            (run.parent / "was-killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if stops or (fault == "ended" and step == 7):
            break
    _write_timeline(run, first, last, step_s)
    if fault == "unwritten":
        (run / "snapshots" / "step-000010").rmdir()
    checkpoint = run / "checkpoints" / f"step-{last:06d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "learner.json").write_text("{}")
    return 0


def _write_step(run: Path, step: int, incarnation: int, wall_s: float) -> None:
    values: dict[str, Any] = {key.name: {int: 0, float: 0.5, dict: None}[key.kind] for key in KEYS}
    values |= {"step": step, "incarnation": incarnation, "wall_s": wall_s, "groups": 8, "groups_filtered": 4}
    values |= {"tokens_trained": 640, "lag_mean": 1.0, "lag_max": 2, "train_s": 0.5, "wait_s": 0.25, "publish_s": 0.1}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(values) + "\n")
    if step % 5 == 0:
        (run / "snapshots" / f"step-{step:06d}").mkdir(parents=True, exist_ok=True)


def _write_timeline(run: Path, first: int, last: int, step_s: float) -> None:
    """Each step: the first half generates, the second trains."""
    start = STARTED_S + 1000 * first
    actor = [{"t": start, "what": "start"}, {"t": start + 8, "what": "load"}, {"t": start + 9, "what": "wait"}]
    learner = [{"t": start, "what": "start"}, {"t": start + 5, "what": "wait"}]
    for number in range(last - first + 1):
        begin = start + 10 + number * step_s
        actor += [{"t": begin, "what": "generate"}, {"t": begin + step_s / 2, "what": "wait"}]
        learner += [{"t": begin + step_s / 2, "what": "train"}, {"t": begin + step_s, "what": "wait"}]
    for name, lines in (("actor-0", actor), ("learner-0", learner)):
        with (run / "timeline" / f"{name}.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def evaluate(arguments: list[str]) -> int:
    """Accuracy that rises with the step, for each snapshot."""
    run = Path(arguments[0])
    ks = arguments[arguments.index("--k") + 1].split(",")
    assert "--snapshots" in arguments
    config = json.loads((run / "config.json").read_text())
    with (run / "eval.jsonl").open("a") as file:
        for folder in sorted((run / "snapshots").iterdir()):
            step = int(folder.name.removeprefix("step-"))
            accuracy = step / 100 + config["run"]["seed"] / 1000
            pass_at = {k: {"mean": accuracy * float(k) ** 0.1, "low": 0.0, "high": 1.0} for k in ks}
            line = {"step": step, "incarnation": 1, "wall_s": 0.0, "pass_at": pass_at, "mean_reward": accuracy}
            file.write(json.dumps(line) + "\n")
    return 0


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    sys.exit({"train": train, "eval": evaluate}[sys.argv[1]](sys.argv[2:]))
