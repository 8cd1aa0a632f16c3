"""How long one optimizer step takes: Rapid's learner beside a plain torch loop and a plain DeepSpeed loop.

    python -m bench.learner_step --model PATH            prints a table, writes bench/results/learner_step.json

Two batches: `quickstart`, groups of 8 completions of 2-16 tokens after a prompt of 53-57; `long`, four sequences of
128 tokens, nearly all of them completion, where nothing can be shared. Each loop runs in a process of its own, on
one thread, and trains the same tokens with the same loss and with fused AdamW:

    torch        one completion a row, padded on the right; logits of all positions; bf16 weights updated as they are
    deepspeed    the same under DeepSpeed, ZeRO 0
    plain        Rapid's learner with learner.row_layout = "plain": head on completion tokens only, fused; own attention
    learner      Rapid's learner as configured by default: completions share their prompt

Times are CPU seconds of the process, which other processes on the machine disturb less than the clock on the wall;
on an idle machine both are the same, since each loop has one thread. Compare loops within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

    from learner.batch import TrainBatch

RESULT = Path(__file__).parent / "results" / "learner_step.json"
LOOPS = ("torch", "deepspeed", "plain", "learner")
BATCHES = ("quickstart", "long")
ROW_TOKENS = 2048


def main() -> None:
    """Run every loop on every batch, or, with --loop, one in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a causal language model in transformers' format")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that warms up")
    parser.add_argument("--batches", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--groups", type=int, default=24, help="groups of the quickstart batch")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop is not None:
        print(json.dumps(_time_loop(options)))
        return
    rows = [_in_own_process(options, loop, batch) for batch in options.batches for loop in LOOPS]
    _print_table(rows)
    RESULT.parent.mkdir(exist_ok=True)
    command = f"python -m bench.learner_step --model PATH --steps {options.steps} --groups {options.groups}"
    machine = {"cpu": _cpu_name(), "threads": 1, "python": platform.python_version()}
    RESULT.write_text(json.dumps({"command": command, "machine": machine, "rows": rows}, indent=1) + "\n")


def _in_own_process(options: argparse.Namespace, loop: str, batch: str) -> dict[str, float | str]:
    arguments = ["--model", options.model, "--batches", batch, "--loop", loop]
    arguments += ["--steps", str(options.steps), "--groups", str(options.groups)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-m", "bench.learner_step", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    row: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    print(f"{batch:10} {loop:10} {row['step_cpu_s']:7.2f} s", file=sys.stderr, flush=True)
    return row


def _time_loop(options: argparse.Namespace) -> dict[str, float | str]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    batch = _make_batch(options.batches[0], options.groups)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16, attn_implementation="sdpa")
    make_step = {"torch": _torch_step, "deepspeed": _deepspeed_step}.get(options.loop, _learner_step)
    step = make_step(model.train(), batch, options.loop)
    seconds = []
    for _ in range(options.steps + 1):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    best = min(seconds[1:])
    return {
        "batch": options.batches[0],
        "loop": options.loop,
        "step_cpu_s": round(best, 3),
        "median_cpu_s": round(statistics.median(seconds[1:]), 3),
        "completion_tokens": batch.num_tokens,
        "tokens_per_cpu_s": round(batch.num_tokens / best, 1),
    }


def _make_batch(name: str, num_groups: int) -> TrainBatch:
    from learner.batch import build_batch
    from protocol.group import Group
    from protocol.version import Lineage, PolicyVersion

    rng = np.random.default_rng(0)

    def make_group(index: int, prompt_length: int, lengths: list[int]) -> Group:
        ones, num_tokens = np.ones(len(lengths), dtype=np.int32), sum(lengths)
        return Group(
            entry_id=f"0:{index}",
            prompt_token_ids=rng.integers(0, 49_000, prompt_length).astype(np.int32),
            token_ids=rng.integers(0, 49_000, num_tokens).astype(np.int32),
            generator_logprobs=np.full(num_tokens, -10, dtype=np.float32),
            lengths=np.array(lengths, dtype=np.int32),
            span_counts=ones,
            span_lengths=np.array(lengths, dtype=np.int32),
            span_incarnations=ones,
            span_steps=0 * ones,
            rewards=(np.arange(len(lengths)) % 2).astype(np.float32),
            stop_reasons=["stop"] * len(lengths),
        )

    if name == "quickstart":
        shapes = [(int(rng.integers(53, 58)), rng.integers(2, 17, 8).tolist()) for _ in range(num_groups)]
    else:
        shapes = [(1, [127] * 4)]
    groups = [make_group(index, *shape) for index, shape in enumerate(shapes)]
    return build_batch(groups, Lineage(), PolicyVersion(1, 0))


def _plain_rows(batch: TrainBatch) -> tuple[list[range], list[torch.Tensor]]:
    """Which rows make a micro-batch, and the rows, one of prompt and completion for each completion."""
    import torch

    prompts = torch.split(batch.prompt_ids_P, batch.prompt_lengths_N.tolist())
    completions = torch.split(batch.token_ids_T, batch.lengths_C.tolist())
    pairs = zip(batch.group_of_C.tolist(), completions, strict=True)
    rows = [torch.cat([prompts[group], tokens]) for group, tokens in pairs]
    rows_each = max(1, ROW_TOKENS // max(len(row) for row in rows))
    return [range(start, min(start + rows_each, len(rows))) for start in range(0, len(rows), rows_each)], rows


def _plain_losses(model: nn.Module, batch: TrainBatch) -> Iterator[torch.Tensor]:
    """Losses of a plain loop, one micro-batch after another: logits of every position, mean over completions."""
    import torch

    parts, rows = _plain_rows(batch)
    prompt_lengths_C = batch.prompt_lengths_N[batch.group_of_C]
    for part in parts:
        input_ids = torch.nn.utils.rnn.pad_sequence([rows[i] for i in part], batch_first=True)
        logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1].float()
        logprobs = logits.log_softmax(-1).gather(2, input_ids[:, 1:, None]).squeeze(2)
        places = torch.arange(1, input_ids.shape[1])
        starts = prompt_lengths_C[part.start : part.stop, None]
        ends = starts + batch.lengths_C[part.start : part.stop, None]
        advantages = batch.rewards_C[part.start : part.stop, None] - 0.5
        yield -(logprobs * advantages * ((places >= starts) & (places < ends))).sum() / batch.num_completions


def _torch_step(model: nn.Module, batch: TrainBatch, _: str) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        for loss in _plain_losses(model, batch):
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _deepspeed_step(model: nn.Module, batch: TrainBatch, _: str) -> Callable[[], None]:
    from learner.ranks import join_ranks

    join_ranks(0, 1, "127.0.0.1", 0)
    import deepspeed
    import torch

    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 1.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": 0},
        "bf16": {"enabled": True},
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)

    def step() -> None:
        last = len(_plain_rows(batch)[0]) - 1
        for number, loss in enumerate(_plain_losses(engine, batch)):
            engine.set_gradient_accumulation_boundary(number == last)
            engine.backward(loss)
        engine.step()

    return step


def _learner_step(model: nn.Module, batch: TrainBatch, loop: str) -> Callable[[], None]:
    from learner.config import AlgorithmConfig, LearnerConfig
    from learner.engine import TrainingEngine
    from learner.ranks import join_ranks
    from learner.update import Updater

    ranks = join_ranks(0, 1, "127.0.0.1", 0)
    config = LearnerConfig(batch_groups=batch.num_groups, row_layout="plain" if loop == "plain" else "auto")
    updater = Updater(TrainingEngine(model, config, ranks), config, AlgorithmConfig(), 1.0, ranks)
    return lambda: updater.update(batch, 1e-6)


def _print_table(rows: list[dict[str, float | str]]) -> None:
    print(f"{'batch':10} {'loop':10} {'CPU s/step':>8} {'tokens/s':>9} {'x torch':>8} {'x deepspeed':>12}")
    speeds = {(row["batch"], row["loop"]): float(row["tokens_per_cpu_s"]) for row in rows}
    for row in rows:
        speed, batch = float(row["tokens_per_cpu_s"]), row["batch"]
        ratios = [speed / speeds[batch, other] for other in ("torch", "deepspeed")]
        print(f"{batch:10} {row['loop']:10} {row['step_cpu_s']:10.2f} {speed:9.0f} {ratios[0]:8.2f} {ratios[1]:12.2f}")


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
