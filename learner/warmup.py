"""Work for nothing before the first batch is there: what it costs to begin is paid while the engines still start.

Memory that is new to a process, and on a virtual machine new to the machine, is slow to get, and libraries choose and
compile their kernels at first use: a first step of 134 M parameters took 5.3 s of one core where the second took 3.3 s,
and 14.3 s where the third took 6.0 s while an engine generated on the other core.
"""

from __future__ import annotations

import torch

from learner.batch import TrainBatch
from learner.engine import TrainingEngine
from learner.ranks import Ranks
from learner.settings import LearnerSettings
from learner.update import Updater

_PROMPT_TOKENS = 64
_PUBLISHED_COPIES = 2
"""Copies of the weights that are served beside the first, which is there already."""


def warm_up(settings: LearnerSettings, engine: TrainingEngine, updater: Updater, ranks: Ranks) -> None:
    """Forward and backward passes without a gradient, and a look at the memory of the first step. Every rank calls it.

    Weights, optimizer state and random numbers are as before.
    """
    with torch.random.fork_rng():  # a model with dropout draws some
        updater.rehearse(made_up_batch(settings, int(engine.model.config.vocab_size)))
    if ranks.device.type == "cpu":
        # glibc keeps what is freed (PROCESS_ENVIRONMENT), and its next owners find pages that are there.
        moments = 0 if engine.has_moments else 8 * engine.num_local_parameters
        torch.empty(moments + _PUBLISHED_COPIES * engine.num_weight_bytes, dtype=torch.uint8).fill_(0)


def made_up_batch(settings: LearnerSettings, vocabulary: int) -> TrainBatch:
    """A micro-batch for each rank in the shape of groups of the run, as full as whole groups make it."""
    prompt = min(_PROMPT_TOKENS, settings.model.max_context // 2)
    room = max(1, (settings.learner.micro_batch_tokens - prompt) // settings.group_size)
    length = min(room, settings.model.max_context - prompt)
    each = max(1, settings.learner.micro_batch_tokens // (prompt + settings.group_size * length))
    groups = each * settings.world_size
    completions, tokens = groups * settings.group_size, groups * settings.group_size * length
    return TrainBatch(
        prompt_ids_P=torch.arange(groups * prompt) % vocabulary,
        prompt_lengths_N=torch.full((groups,), prompt),
        token_ids_T=torch.arange(tokens) % vocabulary,
        generator_logprobs_T=torch.zeros(tokens),
        lags_T=torch.zeros(tokens, dtype=torch.int64),
        completion_of_T=torch.arange(completions).repeat_interleave(length),
        lengths_C=torch.full((completions,), length),
        group_of_C=torch.arange(groups).repeat_interleave(settings.group_size),
        rewards_C=torch.zeros(completions),
    )
