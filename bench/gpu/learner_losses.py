"""The learner's losses and step on a CUDA device beside the CPU, and its speed as a share of the card's.

    python -m bench.gpu.learner_losses        on a machine with an NVIDIA GPU; a few minutes

Three parts, written to bench/results/gpu_learner_losses.json:

    losses   every method on the same random tokens, float32: relative difference of loss and of gradients, CUDA to CPU
    step     one optimizer step of a small random llama, bf16 on CUDA against float32 and bf16 on the CPU: the mean
             difference of log-probabilities, and the gradient's norm. bf16 on the CPU says what bf16 alone does
    speed    tokens a second of the learner on a random model of the shape of Qwen2.5-0.5B, and the operations that
             these take as a share of what one large bf16 matrix product reaches on the same card

With `--device cpu --shape tiny` the script goes through the same motions on any machine, which shows that it runs and
says nothing about a GPU. Exit status 1 where CUDA and CPU differ by more than the precision explains.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from learner.batch import TrainBatch, build_batch
from learner.config import AlgorithmConfig, LearnerConfig
from learner.engine import TrainingEngine
from learner.losses import Switches, Tokens, policy_loss
from learner.presets import PRESETS
from learner.ranks import Ranks, join_ranks
from learner.update import Updater
from protocol.group import Group
from protocol.version import Lineage, PolicyVersion

RESULT = Path(__file__).parents[1] / "results" / "gpu_learner_losses.json"
# float32 on both sides; sums over ten thousand tokens in another order.
LOSS_TOLERANCE = 1e-5
# bf16 alone moves a log-probability by about 0.03 on average (docs/algorithm.md).
LOGPROB_TOLERANCE, NORM_TOLERANCE = 0.06, 0.05
SHAPES = {
    "0.5b": {
        "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip


def main() -> None:
    """All three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shape", default="0.5b", choices=tuple(SHAPES))
    parser.add_argument("--groups", type=int, default=32, help="groups of 8 completions in the batch that is timed")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each completion")
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after two that warm up")
    parser.add_argument("--cpu-step", choices=("float32", "bfloat16"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    join_ranks(0, 1, "127.0.0.1", 0)
    if options.cpu_step is not None:
        given = json.loads(sys.stdin.read())
        print(json.dumps(one_step(Ranks(0, 1, torch.device("cpu")), getattr(torch, options.cpu_step), given)))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench.gpu.learner_losses: no CUDA device here; --device cpu --shape tiny tries the script alone")
    ranks = Ranks(0, 1, torch.device(options.device))
    found = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "losses": compare_losses(ranks.device),
        "step": compare_steps(ranks),
        "speed": time_learner(ranks, options),
    }
    print(json.dumps(found, indent=1))
    if options.device == "cuda":
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    worst = max(difference for row in found["losses"].values() for difference in row.values())
    step = found["step"]
    if worst > LOSS_TOLERANCE or step["logprob_difference"] > LOGPROB_TOLERANCE:
        sys.exit("bench.gpu.learner_losses: device and CPU differ by more than their precision explains")
    if abs(step["grad_norm_device"] / step["grad_norm_cpu_float32"] - 1) > NORM_TOLERANCE:
        sys.exit("bench.gpu.learner_losses: the gradients' norms differ by more than bf16 explains")


def compare_losses(device: torch.device) -> dict[str, dict[str, float]]:
    """Relative differences between the device and the CPU, by method: of the loss, and the largest of a gradient."""
    rows = {}
    for name, switches in PRESETS.items():
        config = AlgorithmConfig(**switches)
        on_cpu, on_device = (_random_loss(config, torch.device(place)) for place in ("cpu", device))
        rows[name] = {
            "loss_difference": abs(on_cpu[0] - on_device[0]) / max(1.0, abs(on_cpu[0])),
            "gradient_difference": float((on_cpu[1] - on_device[1]).abs().max() / on_cpu[1].abs().max()),
        }
    return rows


def _random_loss(config: AlgorithmConfig, device: torch.device) -> tuple[float, torch.Tensor]:
    """Loss and gradient of 64 groups of 8 completions of 20 tokens, the same on every device."""
    random = torch.Generator().manual_seed(0)
    num_groups, num_completions, num_tokens = 64, 512, 10_240
    generator = torch.randn(num_tokens, generator=random) - 3
    trainer, proximal = (generator + 0.2 * torch.randn(num_tokens, generator=random) for _ in range(2))
    kept = torch.rand(num_tokens, generator=random) < 0.9
    rewards = torch.randint(0, 2, (num_completions,), generator=random).float()
    tokens = Tokens(
        trainer=trainer.to(device).requires_grad_(),
        held=trainer.to(device),
        generator=generator.to(device),
        completion_of=torch.arange(num_completions).repeat_interleave(20).to(device),
        group_of=torch.arange(num_groups).repeat_interleave(8).to(device),
        rewards=rewards.to(device),
        lags=(torch.arange(num_tokens) % 5).to(device),
        proximal=proximal.to(device),
        kept=kept.to(device),
    )
    switches = Switches(**config.loss_switches)
    loss = policy_loss(tokens, switches, num_groups=num_groups, num_tokens=num_tokens).loss
    (gradient,) = torch.autograd.grad(loss, tokens.trainer)
    return float(loss.detach()), gradient.cpu()


def compare_steps(ranks: Ranks) -> dict[str, float]:
    """One step of a small llama on the device in bf16, and on the CPU in float32 and bf16.

    DeepSpeed knows one kind of device a process, so that the CPU has processes of its own. All three take what float32
    gives for the generator's log-probabilities.
    """
    exact = _in_cpu_process("float32", None)
    cpu_bf16 = _in_cpu_process("bfloat16", exact["logprobs"])
    on_device = one_step(ranks, torch.bfloat16, exact["logprobs"])
    logprobs = {name: torch.tensor(row["logprobs"]) for name, row in (("bf16", cpu_bf16), ("device", on_device))}
    expected = torch.tensor(exact["logprobs"])
    return {
        "grad_norm_device": on_device["grad_norm"],
        "grad_norm_cpu_bf16": cpu_bf16["grad_norm"],
        "grad_norm_cpu_float32": exact["grad_norm"],
        "logprob_difference": float((logprobs["device"] - expected).abs().mean()),
        "logprob_difference_cpu_bf16": float((logprobs["bf16"] - expected).abs().mean()),
    }


def _in_cpu_process(dtype: str, generator_logprobs: list[float] | None) -> dict[str, Any]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-m", "bench.gpu.learner_losses", "--cpu-step", dtype]
    given = json.dumps(generator_logprobs)
    done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def one_step(ranks: Ranks, dtype: torch.dtype, generator_logprobs: list[float] | None) -> dict[str, Any]:
    """The log-probabilities before a step and the gradient's norm; None takes the former for the generator's."""
    torch.manual_seed(1)
    batch = _random_batch(8, 24, 512)
    model = LlamaForCausalLM(LlamaConfig(**SHAPES["tiny"], initializer_range=0.1)).to(dtype)
    updater, engine = _updater(model, batch, ranks)
    logprobs_T = _logprobs(updater, engine, batch)
    generator_T = logprobs_T if generator_logprobs is None else torch.tensor(generator_logprobs)
    norm = updater.update(replace(batch, generator_logprobs_T=generator_T), 1e-4).grad_norm
    engine.close()
    return {"grad_norm": norm, "logprobs": logprobs_T.tolist()}


def _updater(model: torch.nn.Module, batch: TrainBatch, ranks: Ranks) -> tuple[Updater, TrainingEngine]:
    config = LearnerConfig(batch_groups=batch.num_groups, micro_batch_tokens=16_384)
    engine = TrainingEngine(model, config, ranks)
    return Updater(engine, config, AlgorithmConfig(), 1.0, ranks), engine


def _logprobs(updater: Updater, engine: TrainingEngine, batch: TrainBatch) -> torch.Tensor:
    found_T = torch.zeros(batch.num_tokens)
    for micro_batch in updater.lay_out(batch):
        found_T[micro_batch.token_index] = engine.plain_logprobs(micro_batch, 1.0).cpu()
    return found_T


def time_learner(ranks: Ranks, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step, and the operations that it takes beside those of a matrix product."""
    shape = SHAPES[options.shape]
    model = Qwen2ForCausalLM(Qwen2Config(**shape)).to(torch.bfloat16)
    num_weights = sum(weight.numel() for weight in model.parameters())
    batch = _random_batch(options.groups, options.tokens, shape["vocab_size"])
    updater, engine = _updater(model, batch, ranks)
    seconds = []
    for _ in range(options.steps + 2):
        start = time.perf_counter()
        updater.update(batch, 1e-6)
        _wait(ranks.device)
        seconds.append(time.perf_counter() - start)
    engine.close()
    best = min(seconds[2:])
    # Forward and backward, two and four operations a weight; tied, so that the head's weights are the embedding's.
    # Positions of prompts, which are computed once a row, are left out: the share is a lower bound.
    operations = 6.0 * num_weights * batch.num_tokens
    rate = matrix_rate(ranks.device)
    return {
        "weights": float(num_weights),
        "step_s": best,
        "tokens_per_s": batch.num_tokens / best,
        "operations_per_s": operations / best,
        "matrix_rate": rate,
        "share_of_matrix_rate": operations / best / rate,
    }


def matrix_rate(device: torch.device) -> float:
    """Operations a second of a large bf16 matrix product."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        left @ right
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _random_batch(num_groups: int, length: int, vocabulary: int) -> TrainBatch:
    rng = np.random.default_rng(0)
    ones, lengths = np.ones(8, dtype=np.int32), np.full(8, length, dtype=np.int32)
    groups = [
        Group(
            entry_id=f"0:{index}",
            prompt_token_ids=rng.integers(0, vocabulary, 64).astype(np.int32),
            token_ids=rng.integers(0, vocabulary, 8 * length).astype(np.int32),
            generator_logprobs=np.full(8 * length, -np.log(vocabulary), dtype=np.float32),
            lengths=lengths,
            span_counts=ones,
            span_lengths=lengths,
            span_incarnations=ones,
            span_steps=0 * ones,
            rewards=(np.arange(8) % 2).astype(np.float32),
            stop_reasons=["stop"] * 8,
        )
        for index in range(num_groups)
    ]
    return build_batch(groups, Lineage(), PolicyVersion(1, 0))


if __name__ == "__main__":
    main()
