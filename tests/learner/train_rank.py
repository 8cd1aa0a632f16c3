"""One rank of small trainings, for test_engine.py and test_loss_ranks.py.

    train_rank.py MODEL_DIR OUT_DIR TRAININGS RANK NUM_RANKS PORT

TRAININGS is a JSON list of {"name", "stage", "algorithm", "row_layout", "dtype", "is_rehearsed"}, all but the name
optional. For each, two off-policy optimizer steps on scripted batches; rank 0 writes the weights to
OUT_DIR/NAME.safetensors and what the steps did to OUT_DIR/NAME.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from learner.anchors import Anchors
from learner.batch import build_batch
from learner.config import AlgorithmConfig
from learner.engine import TrainingEngine
from learner.frozen import FrozenPolicy
from learner.ranks import Ranks, join_ranks, leave_ranks
from learner.update import Updater
from protocol.version import Lineage, PolicyVersion
from tests.learner.learner_kit import learner_config, make_groups


def main() -> None:
    model_dir, out_dir, trainings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    rank, num_ranks, port = (int(argument) for argument in sys.argv[4:7])
    torch.set_num_threads(1)
    ranks = join_ranks(rank, num_ranks, "127.0.0.1", port)
    for training in trainings:
        train(model_dir, out_dir / training.pop("name"), ranks, **training)
    leave_ranks()


def train(
    model_dir: Path,
    out: Path,
    ranks: Ranks,
    stage: int = 0,
    algorithm: dict | None = None,
    row_layout: str = "auto",
    dtype: str = "float32",
    is_rehearsed: bool = False,
) -> None:
    # A large eps: Adam would otherwise forgive a gradient of the wrong scale, and make much of rounding in small ones.
    config = learner_config(
        ranks=ranks.world_size, zero_stage=stage, grad_clip=0.5, eps=1e-2, row_layout=row_layout,
        gradient_cosine_every=None if stage == 3 else 2,
    )  # fmt: skip
    loss = AlgorithmConfig(**(algorithm or {}))
    engine = TrainingEngine(load_model(model_dir, dtype), config, ranks)
    anchors = Anchors(
        engine, loss, 1.0, ranks,
        reference=FrozenPolicy(load_model(model_dir), row_layout, ranks.device),
        proximal=FrozenPolicy(load_model(model_dir), row_layout, ranks.device),
    )  # fmt: skip
    updater = Updater(engine, config, loss, 1.0, ranks, anchors)
    anchors.hold()
    notes = []
    if is_rehearsed:
        updater.rehearse(build_batch(make_groups(model_dir, PolicyVersion(1, 7)), Lineage(), PolicyVersion(1, 7)))
    for step in range(2):
        version = PolicyVersion(1, step)
        batch = build_batch(make_groups(model_dir, version), Lineage(), version)
        # Off-policy as in a run, with lags of several steps within a batch. A small learning rate, since the second
        # step would otherwise magnify the rounding of the first.
        noise_T = 0.1 * torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(step))
        generator_T, lags_T = batch.generator_logprobs_T + noise_T, torch.arange(batch.num_tokens) % 4
        batch = replace(batch, generator_logprobs_T=generator_T, lags_T=lags_T)
        update = updater.update(batch, lr=2e-3, with_cosine=step == 1 and stage != 3)
        notes.append({"loss": update.loss, "grad_norm": update.grad_norm, **update.extra})
        notes[-1]["clipped_fraction"] = update.diagnostics["clipped_fraction"]
    weights = {name: weight.clone() for name, weight in engine.iter_weights()}
    engine.close()
    if ranks.is_first:
        save_file(weights, out.with_suffix(".safetensors"))
        out.with_suffix(".json").write_text(json.dumps(notes))


def load_model(model_dir: Path, dtype: str = "float32") -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype), attn_implementation="sdpa")


if __name__ == "__main__":
    main()
