"""One rank of small trainings, for test_engine.py.

    train_rank.py MODEL_DIR OUT_DIR STAGES RANK NUM_RANKS PORT

For each ZeRO stage, two optimizer steps on scripted batches; rank 0 writes the weights to OUT_DIR/STAGE.safetensors
and what the steps did to OUT_DIR/STAGE.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from learner.batch import build_batch
from learner.config import AlgorithmConfig
from learner.engine import TrainingEngine
from learner.ranks import Ranks, join_ranks, leave_ranks
from learner.update import Updater
from protocol.version import Lineage, PolicyVersion
from tests.learner.learner_kit import learner_config, make_groups


def main() -> None:
    model_dir, out_dir, stages = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    rank, num_ranks, port = (int(argument) for argument in sys.argv[4:7])
    torch.set_num_threads(1)
    ranks = join_ranks(rank, num_ranks, "127.0.0.1", port)
    for stage in stages.split(","):
        train(model_dir, out_dir / stage, int(stage), ranks)
    leave_ranks()


def train(model_dir: Path, out: Path, stage: int, ranks: Ranks) -> None:
    # A large eps: Adam would otherwise forgive a gradient of the wrong scale, and make much of rounding in small ones.
    config = learner_config(ranks=ranks.world_size, zero_stage=stage, grad_clip=0.5, eps=1e-2)
    model = LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")
    engine = TrainingEngine(model, config, ranks)
    updater = Updater(engine, config, AlgorithmConfig(), 1.0, ranks)
    notes = []
    for step in range(2):
        version = PolicyVersion(1, step)
        update = updater.update(build_batch(make_groups(model_dir, version), Lineage(), version), lr=config.lr)
        notes.append({"loss": update.loss, "grad_norm": update.grad_norm})
    weights = {name: weight.clone() for name, weight in engine.iter_weights()}
    engine.close()
    if ranks.is_first:
        save_file(weights, out.with_suffix(".safetensors"))
        out.with_suffix(".json").write_text(json.dumps(notes))


if __name__ == "__main__":
    main()
