"""The learner's parts, put together from its settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from learner.anchors import Anchors
from learner.checkpoint import claim_lineage, load_rank, read_info
from learner.engine import TrainingEngine
from learner.frozen import FrozenPolicy
from learner.link import HubLink
from learner.publisher import Publisher, WeightPublisher
from learner.ranks import Ranks
from learner.sampler import Sampler
from learner.settings import LearnerSettings
from learner.threads import borrow_threads
from learner.update import Updater
from protocol.core_loan import Lender
from protocol.version import PolicyVersion
from telemetry.catalogue import LEARNER_PUBLISHED_BYTES
from telemetry.exporter import Exporter
from telemetry.run_dir import RunDirectory

RESUMED_RECORDS = 2000
"""Lines of metrics.jsonl that a resumed learner hands to its hub, which is new as well."""


@dataclass(frozen=True)
class FirstRank:
    """What only rank 0 has: the ends towards hub and actors, the run's folder, its metrics and samples, its cores."""

    link: HubLink
    publisher: Publisher
    run: RunDirectory
    exporter: Exporter
    sampler: Sampler
    lender: Lender


def prepare_process(settings: LearnerSettings) -> None:
    """Bind this process to its cores, and seed it."""
    if settings.cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings.cores)
    threads = settings.learner.threads or (len(settings.cores) if settings.cores else None)
    if threads is not None:
        torch.set_num_threads(threads)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    torch.manual_seed(settings.seed + settings.rank)


def start_version(settings: LearnerSettings) -> PolicyVersion:
    """The version at which this incarnation begins."""
    if settings.resume_from is None:
        return PolicyVersion(1, 0)
    return PolicyVersion(settings.lineage.incarnation, read_info(settings.resume_from).version.step)


def build_engine(settings: LearnerSettings, ranks: Ranks) -> TrainingEngine:
    """The trainer with the weights, and after a resume the optimizer and random number states, of the start."""
    resume = settings.resume_from
    path = Path(settings.model_path) if resume is None else resume / "model"
    engine = TrainingEngine(_load_model(path, settings), settings.learner, ranks)
    if settings.loan is not None and settings.loan.lent and ranks.device.type == "cpu":
        borrow_threads(settings.loan, engine.model)
    if resume is not None:
        engine.load_optimizer_state(load_rank(resume, ranks.rank))
    return engine


def build_updater(settings: LearnerSettings, engine: TrainingEngine, ranks: Ranks) -> Updater:
    """What makes the steps, with the frozen policies that `[algorithm]` asks for.

    The reference is the model that the run began with, after a resume too; the proximal policy gets its weights at
    the first broadcast, which comes before the first step.
    """

    def frozen() -> FrozenPolicy:
        model = _load_model(Path(settings.model_path), settings)
        return FrozenPolicy(model, settings.learner.row_layout, ranks.device)

    algorithm = settings.algorithm
    anchors = Anchors(
        engine,
        algorithm,
        settings.temperature,
        ranks,
        reference=frozen() if algorithm.kl_coefficient > 0 else None,
        proximal=frozen() if algorithm.proximal == "recomputed" else None,
    )
    return Updater(engine, settings.learner, algorithm, settings.temperature, ranks, anchors)


def _load_model(path: Path, settings: LearnerSettings) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, settings.model.dtype), attn_implementation="sdpa", local_files_only=True
    )
    return model


@contextmanager
def connect_first_rank(settings: LearnerSettings) -> Iterator[FirstRank]:
    """Rank 0's connections; closed at the end, the publisher first, since it announces through the link."""
    claim_lineage(settings.run_dir, settings.lineage)
    run = RunDirectory.open(settings.run_dir)
    with ExitStack() as stack:
        exporter = Exporter("learner-0", settings.telemetry.facing(settings.hub_address), settings.run_dir)
        stack.callback(exporter.close)
        link = HubLink(settings.hub_address, settings.name, exporter.address or "")
        stack.callback(link.close)
        link.hand_over(run.read_metrics()[-RESUMED_RECORDS:])
        publisher = build_publisher(settings, link, exporter)
        stack.callback(publisher.close)
        sampler = Sampler(settings, run.samples_path)
        stack.callback(sampler.close)
        lender = Lender(settings.loan)
        stack.callback(lender.close)
        yield FirstRank(link, publisher, run, exporter, sampler, lender)


def build_publisher(settings: LearnerSettings, link: HubLink, exporter: Exporter) -> Publisher:
    """The publisher that `weights.transport` names."""
    if settings.weights.transport == "zmq":
        return WeightPublisher(
            settings.publish_host, link.announce, lambda count: exporter.inc(LEARNER_PUBLISHED_BYTES, count)
        )
    # vLLM belongs to the learner's environment with these transports alone.
    from learner.publisher_gpu import GpuWeightPublisher

    return GpuWeightPublisher(
        settings.weights.transport, settings.publish_host, settings.weight_receivers, link.announce
    )
