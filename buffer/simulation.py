"""A small world around the machine, without processes: actors that generate by formula, and a learner that only counts.

What a group holds is a pure function of its entry and of the weights that generate it, while the order in which
things happen is drawn at random. So whatever differs between two runs of equal configuration is the machine's doing.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from buffer.machine import Machine
from protocol.config import ScheduleConfig
from protocol.errors import RefusedError
from protocol.group import Group
from protocol.messages import Batch, Phase, WeightManifest, WorkItem
from protocol.version import PolicyVersion

_TOKENS_A_SPAN = 2


def scripted_group(
    entry_id: str, versions: Sequence[PolicyVersion], *, num_completions: int = 2, signal: bool | None = None
) -> Group:
    """A valid group: every completion has two tokens of each version.

    Args:
        entry_id: of the ledger.
        versions: in the order in which they generated, at least one.
        num_completions: G.
        signal: whether rewards differ; None lets the entry and the versions decide.
    """
    digest = zlib.crc32(f"{entry_id}/{'/'.join(map(str, versions))}".encode())
    length = _TOKENS_A_SPAN * len(versions)
    differs = digest % 4 != 0 if signal is None else signal
    rewards = np.zeros(num_completions, np.float32)
    rewards[0] = 1.0 if differs else 0.0
    return Group(
        entry_id=entry_id,
        prompt_token_ids=np.array([digest % 1000], np.int32),
        token_ids=np.arange(num_completions * length, dtype=np.int32),
        generator_logprobs=np.full(num_completions * length, -(digest % 7) / 7, np.float32),
        lengths=np.full(num_completions, length, np.int32),
        span_counts=np.full(num_completions, len(versions), np.int32),
        span_lengths=np.full(num_completions * len(versions), _TOKENS_A_SPAN, np.int32),
        span_incarnations=np.array([version.incarnation for version in versions] * num_completions, np.int32),
        span_steps=np.array([version.step for version in versions] * num_completions, np.int32),
        rewards=rewards,
        stop_reasons=["stop"] * num_completions,
    )


def scripted_manifest(version: PolicyVersion) -> WeightManifest:
    """Weights without a tensor."""
    return WeightManifest(
        version=version,
        transport="zmq",
        address="inproc://none",
        names=[],
        dtypes=[],
        shapes=[],
        sizes=[],
        checksums=[],
    )


@dataclass(slots=True)
class ScriptedActor:
    """Holds leases; its weights may change while a group is under way."""

    name: str
    version: PolicyVersion
    held: list[tuple[WorkItem, list[PolicyVersion]]] = field(default_factory=list)

    def load(self, version: PolicyVersion) -> None:
        """Change weights in the middle of everything."""
        self.version = version
        for _, versions in self.held:
            versions.append(version)


class World:
    """Actors and a learner that act in random order until the learner has done its steps.

    Args:
        machine: fresh.
        schedule: the one that the machine has.
        num_actors: at least one.
        seed: of the order of things.
        failure_rate: share of groups that fail, and are generated again.
    """

    def __init__(
        self, machine: Machine, schedule: ScheduleConfig, *, num_actors: int = 2, seed: int = 0, failure_rate: float = 0
    ) -> None:
        self.machine = machine
        self.batches: list[Batch] = []
        self._schedule = schedule
        self._random = random.Random(seed)
        self._failure_rate = failure_rate
        self._version = PolicyVersion(1, 0)
        self._batch: Batch | None = None
        self._generating = True
        self._actors = [ScriptedActor(f"actor-{number}", self._version) for number in range(num_actors)]
        machine.learner.publish(scripted_manifest(self._version))

    def run(self, max_events: int = 100_000) -> list[Batch]:
        """All batches, in order. Raises RuntimeError when the learner does not get there."""
        for _ in range(max_events):
            if self._version.step >= self._schedule.steps:
                return self.batches
            if self._random.random() < 0.3:
                self._learn()
            else:
                self._act(self._random.choice(self._actors))
        raise RuntimeError(
            f"no end after {max_events} events, at version {self._version}: {self.machine.ledger.counts}"
        )

    def _act(self, actor: ScriptedActor) -> None:
        for push in self.machine.take_pushes():
            if isinstance(push.message, Phase):
                self._generating = push.message.generating
        manifest = self.machine.manifest
        if manifest is not None and manifest.version != actor.version:
            actor.load(manifest.version)
        elif not self._generating:
            return  # asleep, with what is under way
        elif actor.held and self._random.random() < 0.7:
            self._finish(*actor.held.pop(self._random.randrange(len(actor.held))))
        else:
            items = self.machine.actors.lease(actor.name, self._random.randint(1, 4), actor.version, 0.0)
            actor.held += [(item, [actor.version]) for item in items]

    def _finish(self, item: WorkItem, versions: list[PolicyVersion]) -> None:
        if self._random.random() < self._failure_rate:
            self.machine.actors.give_back(item.lease_id, True, "scripted")
        else:
            self.machine.actors.submit(item.lease_id, scripted_group(item.entry_id, versions))

    def _learn(self) -> None:
        if self._batch is None:
            self._batch = self._pull()
            return
        self._version = PolicyVersion(self._version.incarnation, self._version.step + 1)
        self.machine.learner.commit(self._batch.batch_id, self._version)
        self._batch = None
        if self._version.step % self._schedule.broadcast_every == 0:
            self.machine.learner.publish(scripted_manifest(self._version))

    def _pull(self) -> Batch | None:
        try:
            batch = self.machine.learner.pull(self._version)
        except RefusedError as refusal:
            if refusal.code != "empty":
                raise
            return None
        self.batches.append(batch)
        return batch
