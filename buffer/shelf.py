"""The groups that wait to be trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from buffer.config import BufferConfig, Sampler
from buffer.samplers import fifo, lag_weighted
from protocol.group import Group
from protocol.version import PolicyVersion

LagOf = Callable[[tuple[PolicyVersion, ...]], int]
"""The largest lag of these versions to the version that trains next."""


@dataclass(frozen=True, slots=True)
class ShelvedGroup:
    """A group, its place in the ledger, and the versions that generated it."""

    order: int
    group: Group
    versions: tuple[PolicyVersion, ...]


class Shelf:
    """Buffered groups by their place in the ledger.

    Args:
        config: which sampler.
        max_staleness: η.
        seed: of the sampler that draws at random.
    """

    def __init__(self, config: BufferConfig, max_staleness: int, seed: int) -> None:
        self._config = config
        self._max_staleness = max_staleness
        self._seed = seed
        self._groups: dict[int, ShelvedGroup] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def put(self, shelved: ShelvedGroup) -> None:
        """Keep a group."""
        self._groups[shelved.order] = shelved

    def take_all(self) -> list[ShelvedGroup]:
        """Remove all groups, in the order of the ledger."""
        return self._take(sorted(self._groups))

    def take_stale(self, lag_of: LagOf) -> list[ShelvedGroup]:
        """Remove the groups beyond the bound, in the order of the ledger."""
        stale = [order for order, shelved in self._groups.items() if lag_of(shelved.versions) > self._max_staleness]
        return self._take(sorted(stale))

    def take_batch(self, version: PolicyVersion, count: int, lag_of: LagOf) -> list[tuple[ShelvedGroup, int]] | None:
        """Remove `count` groups within the bound: (group, lag), in the order of the ledger; None if there are fewer.

        A pure function of the groups, the version and the seed.
        """
        orders = sorted(self._groups)
        lags = [lag_of(self._groups[order].versions) for order in orders]
        chosen = self._sample(version, lags, count)
        if chosen is None:
            return None
        taken = self._take([orders[position] for position in chosen])
        return [(shelved, lags[position]) for shelved, position in zip(taken, chosen, strict=True)]

    def count_lags(self, lag_of: LagOf) -> Counter[int]:
        """Groups by lag."""
        return Counter(lag_of(shelved.versions) for shelved in self._groups.values())

    def _sample(self, version: PolicyVersion, lags: list[int], count: int) -> list[int] | None:
        if self._config.sampler is Sampler.FIFO:
            return fifo(lags, count, self._max_staleness)
        rng = np.random.default_rng([self._seed, version.incarnation, version.step])
        return lag_weighted(lags, count, self._max_staleness, decay=self._config.lag_decay, rng=rng)

    def _take(self, orders: list[int]) -> list[ShelvedGroup]:
        return [self._groups.pop(order) for order in orders]
