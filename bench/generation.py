"""Tokens a second of a whole actor beside vLLM alone: `python -m bench.generation --model PATH`.

Both answer the same prompts (reasoning-gym chain_sum, two terms of one or two digits), 8 completions of at most 16
tokens each, on the same core:

    vllm      vLLM alone, its defaults: LLM.generate gets all prompts at once and returns tokens, no log-probabilities
    engine    vLLM alone as Rapid runs it: all prompts at once, tokens with log-probabilities and versions
    actor     Rapid's actor: leases from a hub, prompts tokenised, tokens with log-probabilities and versions,
              completions decoded and rewarded in a reward process, groups submitted; its weights came over the wire

Each runs in processes of its own, one after the other, several times; the best round of each counts, since whatever
else runs on the machine can only slow them down. CPU seconds are those of the engine's processes. Start-up and the
first groups are not timed. Prints a table and writes bench/results/generation.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

RESULT = Path(__file__).parent / "results" / "generation.json"
SIDES = ("vllm", "engine", "actor")
GROUP_SIZE = 8
MAX_TOKENS = 16
MAX_CONTEXT = 128
NUM_WARM_GROUPS = 8
TASK = {
    "name": "reasoning_gym",
    "dataset": "chain_sum",
    "params": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
}


def main() -> None:
    """Run both sides at each concurrency, or, with --side, one in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model in transformers' format")
    parser.add_argument("--sequences", type=int, nargs="+", default=[64, 128, 192], help="sequences decoded at once")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side runs")
    parser.add_argument("--core", type=int, default=0, help="the core that the engine may use")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        print(json.dumps(_measure(options)))
        return
    rows = [_compare(options, sequences) for sequences in options.sequences]
    _print_table(rows)
    RESULT.parent.mkdir(exist_ok=True)
    sequences = " ".join(map(str, options.sequences))
    command = f"python -m bench.generation --model PATH --sequences {sequences} --rounds {options.rounds}"
    machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    RESULT.write_text(json.dumps({"command": command, **machine, "rows": rows}, indent=1) + "\n")


def _measure(options: argparse.Namespace) -> dict[str, float]:
    if options.side == "vllm":
        return _measure_vllm(options)
    return asyncio.run(_measure_engine(options) if options.side == "engine" else _measure_actor(options))


def _compare(options: argparse.Namespace, sequences: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "bench.generation", "--side", side, "--sequences", str(sequences)]
            command += ["--model", str(options.model), "--core", str(options.core)]
            environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
            output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            found[side].append(json.loads(output.splitlines()[-1]))
    row: dict[str, Any] = {"sequences": sequences}
    for unit in ("tokens_per_s", "tokens_per_cpu_s"):
        for side in SIDES:
            row[f"{side}_{unit}"] = round(max(one[unit] for one in found[side]), 1)
        for side in SIDES[:-1]:
            row[f"actor_to_{side}_{unit}"] = round(row[f"actor_{unit}"] / row[f"{side}_{unit}"], 3)
    return row


def _print_table(rows: list[dict[str, Any]]) -> None:
    for unit in ("tokens_per_s", "tokens_per_cpu_s"):
        print(f"{unit}\nsequences   vllm     engine   actor    actor/vllm   actor/engine")
        for row in rows:
            rates = "".join(f"{row[f'{side}_{unit}']:<9}" for side in SIDES)
            ratios = f"{row[f'actor_to_vllm_{unit}']:<13}{row[f'actor_to_engine_{unit}']}"
            print(f"{row['sequences']:<12}{rates}{ratios}")


def _engine_cpu_s() -> float:
    """CPU seconds of the engine: of all processes that this one started, rewards apart."""
    names = ("vllm::", "multiprocessing.spawn")
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(name in " ".join(child.cmdline()).lower() for name in names):
                total += sum(child.cpu_times()[:2])
    return total


def _num_groups(options: argparse.Namespace) -> int:
    return 3 * options.sequences[0] // GROUP_SIZE


# --- vLLM alone -------------------------------------------------------------------------------------


def _measure_vllm(options: argparse.Namespace) -> dict[str, float]:
    os.environ.update(VLLM_CPU_OMP_THREADS_BIND=str(options.core), VLLM_CPU_KVCACHE_SPACE="1")
    from vllm import LLM, SamplingParams

    prompts = [
        {"prompt_token_ids": token_ids} for token_ids in _prompts(options, NUM_WARM_GROUPS + _num_groups(options))
    ]
    llm = LLM(
        str(options.model),
        dtype="bfloat16",
        max_model_len=MAX_CONTEXT,
        max_num_seqs=options.sequences[0],
        enforce_eager=True,
        disable_log_stats=True,
    )
    sampling = SamplingParams(n=GROUP_SIZE, max_tokens=MAX_TOKENS, temperature=1.0, detokenize=False)
    llm.generate(prompts[:NUM_WARM_GROUPS], sampling, use_tqdm=False)
    cpu_s, begin_s = _engine_cpu_s(), time.monotonic()
    groups = llm.generate(prompts[NUM_WARM_GROUPS:], sampling, use_tqdm=False)
    elapsed_s, cpu_s = time.monotonic() - begin_s, _engine_cpu_s() - cpu_s
    num_tokens = sum(len(one.token_ids) for group in groups for one in group.outputs)
    return {"tokens_per_s": num_tokens / elapsed_s, "tokens_per_cpu_s": num_tokens / cpu_s}


def _prompts(options: argparse.Namespace, count: int) -> list[list[int]]:
    from actors.text import ChatText
    from tasks import TaskConfig, build_task

    task, text = build_task(TaskConfig(**TASK)), ChatText(options.model)
    return [text.encode(task.prompt(index).messages).tolist() for index in range(count)]


# --- the engine alone -------------------------------------------------------------------------------


async def _measure_engine(options: argparse.Namespace) -> dict[str, float]:
    from actors.engine import GenerateRequest
    from actors.rollout import build_engine
    from actors.text import ChatText

    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(options, "tcp://127.0.0.1:1", Path(folder))
    engine = build_engine(settings, ChatText(options.model).stop_token_ids)
    await engine.start()
    prompts = _prompts(options, NUM_WARM_GROUPS + _num_groups(options))
    # The version is what a first update would have set.
    await engine._engine.update_weight_version("1.0")
    requests = [
        GenerateRequest(f"0:{index}", np.array(token_ids, np.int32), GROUP_SIZE, MAX_TOKENS, 1.0, 0)
        for index, token_ids in enumerate(prompts)
    ]
    await asyncio.gather(*map(engine.generate, requests[:NUM_WARM_GROUPS]))
    cpu_s, begin_s = _engine_cpu_s(), time.monotonic()
    groups = await asyncio.gather(*map(engine.generate, requests[NUM_WARM_GROUPS:]))
    elapsed_s, cpu_s = time.monotonic() - begin_s, _engine_cpu_s() - cpu_s
    await engine.close()
    num_tokens = sum(len(one.token_ids) for group in groups for one in group)
    return {"tokens_per_s": num_tokens / elapsed_s, "tokens_per_cpu_s": num_tokens / cpu_s}


# --- the actor --------------------------------------------------------------------------------------


async def _measure_actor(options: argparse.Namespace) -> dict[str, float]:
    from actors.rollout import run_actor
    from bench.served_weights import GrantingHub, ServedWeights

    hub, stop = GrantingHub(ServedWeights(options.model)), asyncio.Event()
    with tempfile.TemporaryDirectory() as folder:
        actor = asyncio.create_task(run_actor(_settings(options, hub.address, Path(folder)), stop, asyncio.Event()))
        await _until(actor, hub.grant_until(NUM_WARM_GROUPS))
        num_tokens, cpu_s, begin_s = hub.num_tokens, _engine_cpu_s(), time.monotonic()
        await _until(actor, hub.grant_until(NUM_WARM_GROUPS + _num_groups(options)))
        elapsed_s, cpu_s, num_tokens = time.monotonic() - begin_s, _engine_cpu_s() - cpu_s, hub.num_tokens - num_tokens
        stop.set()
        await actor
    await hub.close()
    return {"tokens_per_s": num_tokens / elapsed_s, "tokens_per_cpu_s": num_tokens / cpu_s}


async def _until(actor: asyncio.Task[None], work: Any) -> None:
    """Wait for the work, or raise what ended the actor."""
    waiting = asyncio.create_task(work)
    await asyncio.wait([actor, waiting], return_when=asyncio.FIRST_COMPLETED)
    if actor.done():
        actor.result()
    await waiting


def _settings(options: argparse.Namespace, hub_address: str, folder: Path) -> Any:
    from actors.config import ActorsConfig
    from actors.settings import RolloutSettings
    from protocol.config import ModelConfig, ScheduleConfig, WeightsConfig
    from tasks import TaskConfig

    actors = ActorsConfig(
        group_size=GROUP_SIZE, max_tokens=MAX_TOKENS, concurrent_groups=options.sequences[0] // GROUP_SIZE
    )
    return RolloutSettings(
        name="actor-0",
        hub_address=hub_address,
        model_path=options.model,
        model=ModelConfig(path=str(options.model), max_context=MAX_CONTEXT),
        actors=actors,
        schedule=ScheduleConfig(),
        weights=WeightsConfig(),
        task=TaskConfig(**TASK),
        cores=[options.core],
        run_dir=folder,
    )


if __name__ == "__main__":
    main()
