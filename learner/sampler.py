"""Keeps samples of what was trained on: a few groups of every n-th step, as text, for whoever reads the report."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from learner.settings import LearnerSettings
from protocol.group import Group
from protocol.version import Lineage, PolicyVersion
from telemetry.samples import Sample, SampleWriter, Tokenizer, token_texts

log = logging.getLogger(__name__)

_MAX_TOKENS = 2048
"""Tokens kept of a completion: enough to see how it goes, and a bound on the file."""


class Sampler:
    """Writes samples in a thread of its own, so that training goes on.

    Args:
        settings: those of the first rank; `telemetry.samples_every` and `samples_groups` say how much is kept.
        path: the file, see telemetry.samples.
    """

    def __init__(self, settings: LearnerSettings, path: Path) -> None:
        self._every, self._num_groups = settings.telemetry.samples_every, settings.telemetry.samples_groups
        self._lineage, self._model_path = settings.lineage, settings.model_path
        self._writer = SampleWriter(path) if self._every else None
        self._tokenizer: Tokenizer | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="rapid-samples")

    def offer(self, groups: Sequence[Group], trained: PolicyVersion) -> None:
        """The step that led to `trained` was made on these groups: keep some of them if it is its turn."""
        if self._writer is not None and (trained.step == 1 or trained.step % self._every == 0):
            # A batch has the order of the ledger, so that its first groups are its oldest, and not typical.
            count = min(self._num_groups, len(groups))
            chosen = [groups[index * len(groups) // count] for index in range(count)]
            self._worker.submit(self._keep, chosen, trained)

    def close(self) -> None:
        """Finish writing. Idempotent."""
        self._worker.shutdown()

    def _keep(self, groups: Sequence[Group], trained: PolicyVersion) -> None:
        assert self._writer is not None
        try:
            tokenizer = self._load_tokenizer()
            self._writer.append([describe_group(group, trained, self._lineage, tokenizer) for group in groups])
        except Exception as error:  # A model without a tokenizer, a full disk: samples explain a run, they are not it.
            log.warning("no samples of step %d: %s: %s", trained.step, type(error).__name__, error)

    def _load_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self._model_path, local_files_only=True)
        return self._tokenizer


def describe_group(group: Group, trained: PolicyVersion, lineage: Lineage, tokenizer: Tokenizer) -> Sample:
    """A group as `telemetry.samples` says. `trained` is the version that the step on it led to."""
    # Lag counts to the version that the update began from.
    before = PolicyVersion(trained.incarnation, trained.step - 1)
    best, worst = int(group.rewards.argmax()), int(group.rewards.argmin())
    completions = [_describe(group, index, before, lineage, tokenizer) for index in (best, worst)]
    return {
        "step": trained.step,
        "incarnation": trained.incarnation,
        "entry": group.entry_id,
        "actor": group.actor,
        "num_completions": group.num_completions,
        "reward_mean": float(group.rewards.mean()),
        "prompt": "".join(token_texts(tokenizer, group.prompt_token_ids.tolist())),
        "best": completions[0],
        "worst": completions[1],
    }


def _describe(
    group: Group, index: int, before: PolicyVersion, lineage: Lineage, tokenizer: Tokenizer
) -> dict[str, Any]:
    start = int(group.lengths[:index].sum())
    num_tokens = int(group.lengths[index])
    token_ids = group.token_ids[start : start + min(num_tokens, _MAX_TOKENS)].tolist()
    first_span = int(group.span_counts[:index].sum())
    spans = range(first_span, first_span + int(group.span_counts[index]))
    return {
        "tokens": token_texts(tokenizer, token_ids),
        "spans": [_describe_span(group, span, before, lineage) for span in spans],
        "reward": float(group.rewards[index]),
        "parts": {name: _number(values[index]) for name, values in sorted(group.reward_parts.items())},
        "stop": group.stop_reasons[index],
        "num_tokens": num_tokens,
    }


def _describe_span(group: Group, span: int, before: PolicyVersion, lineage: Lineage) -> list[Any]:
    version = PolicyVersion(int(group.span_incarnations[span]), int(group.span_steps[span]))
    return [int(group.span_lengths[span]), str(version), lineage.lag(version, before)]


def _number(value: np.float32) -> float | None:
    """A part that a completion does not have is NaN in a group, which JSON does not know."""
    return float(value) if math.isfinite(value) else None
