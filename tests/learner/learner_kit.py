"""What the tests of the learner share: a tiny llama, scripted groups, settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from learner.config import AlgorithmConfig, LearnerConfig
from learner.scripted_hub import sample_group
from learner.settings import LearnerSettings
from protocol.config import ModelConfig, ScheduleConfig, WeightsConfig
from protocol.group import Group
from protocol.version import PolicyVersion
from tests.ports import quiet_port

ROOT = Path(__file__).parents[2]
VOCABULARY = 64


def make_model(folder: Path, *, tied: bool = True) -> Path:
    """A random llama of two layers, saved as float32."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        # Larger than usual, so that the logits differ from each other and gradients are not tiny.
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_groups(model_dir: Path, version: PolicyVersion, count: int = 4) -> list[Group]:
    """Groups drawn from the model in the folder; different ones for every step, the same in every call."""
    model = LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    start = PolicyVersion(1, 0)
    return [
        sample_group(
            model,
            f"0:{version.step * count + index}",
            # One long prompt, so that the ranks' micro-batches differ in number.
            prompt=[3 + index, 5, 7] * (4 if index == count - 1 else 1),
            lengths=[4, 2 + index, 5],
            version=start,
            seed=1000 * version.step + index,
        )
        for index in range(count)
    ]


def learner_config(**changes: object) -> LearnerConfig:
    """A learner whose few groups make several micro-batches."""
    values = {"batch_groups": 4, "lr": 1e-2, "micro_batch_tokens": 48, "threads": 1, "keep_checkpoints": None}
    return LearnerConfig(**(values | changes))


def make_settings(run_dir: Path, model_dir: Path, hub_address: str, **changes: object) -> LearnerSettings:
    """Settings of a single rank in float32."""
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    values = {
        "hub_address": hub_address,
        "model_path": str(model_dir),
        "model": ModelConfig(path=str(model_dir), dtype="float32"),
        "learner": learner_config(),
        "algorithm": AlgorithmConfig(),
        "schedule": ScheduleConfig(steps=4, max_staleness=8),
        "weights": WeightsConfig(),
        "run_dir": run_dir,
    }
    return LearnerSettings(**(values | changes))


def run_ranks(script: Path, arguments: list[str], num_ranks: int, timeout_s: float = 280.0) -> None:
    """Run a script once a rank, with its rank, their number and a free port as the last arguments."""
    port = quiet_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments, str(rank), str(num_ranks), str(port)],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
