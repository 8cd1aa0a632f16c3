"""Which part of a run uses which CPU cores of one machine.

    two cores, async                     core 0: engines of the actors     core 1: learner; each takes both while the
                                                                           other waits
    two cores, sync or alternate         both cores: engines, then learner; they never work at the same time
    evaluator                            the actors' cores at a lower priority, or task.eval.threads of its own

GPUs and the nodes of a cluster are Ray's to place; there this module only says how much a part asks for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from protocol.config import ScheduleMode
from protocol.core_loan import EVALUATOR, FIRST_ACTOR, LEARNER, CoreLoan
from rapid.config import RapidConfig


@dataclass(frozen=True)
class CorePlan:
    """Cores of each actor's engine and of each rank of the learner; None leaves it to the system."""

    actors: list[list[int] | None]
    learner: list[list[int] | None]
    evaluator: list[int] | None = None
    """Cores of the evaluator's engine."""
    loans: Path | None = None
    """Where learner and actors note that their cores are free (protocol.core_loan). None: nobody borrows any."""

    def actor(self, index: int) -> list[int] | None:
        """Cores of an actor, also of one that joined later."""
        return self.actors[index % len(self.actors)]

    def actor_loan(self, index: int) -> CoreLoan | None:
        """An actor's share of the learner's cores; none for actors beyond their number, or beyond the first."""
        if self.loans is None:
            return None
        lent = _share(self.learner, len(self.actors), index) if index < len(self.actors) else []
        return CoreLoan(file=self.loans, seat=FIRST_ACTOR + index, lent=lent)

    def evaluator_loan(self) -> CoreLoan | None:
        """None for an evaluator that has cores of its own; otherwise it only lends."""
        if self.loans is None or not _all_of(self.actors).intersection(self.evaluator or ()):
            return None
        return CoreLoan(file=self.loans, seat=EVALUATOR, lent=[])

    def learner_loan(self, rank: int) -> CoreLoan | None:
        """A rank's share of the actors' cores."""
        if self.loans is None:
            return None
        return CoreLoan(file=self.loans, seat=LEARNER, lent=_share(self.actors, len(self.learner), rank))


def plan_cores(config: RapidConfig, cores: list[int] | None = None, *, loans: Path | None = None) -> CorePlan:
    """Divide the cores that this process may use.

    In `async` mode the learner takes `learner.threads` cores a rank (half of all where it is None), from the
    highest down, and the actors share what remains; the other modes give all cores to both. Cores that
    `task.eval.threads` sets aside are taken first, from the lowest up.

    Args:
        cores: instead of those of this process.
        loans: folder of the file by which learner and actors lend each other cores. None lends none.
    """
    cores = sorted(os.sched_getaffinity(0)) if cores is None else cores
    plan = _plan_evaluator(config, cores)
    shared = _all_of(plan.actors) & _all_of(plan.learner)
    # A bound of 0 equals `sync` bit for bit, and a changing number of threads would change the order of sums.
    lends = config.run.lend_cores and config.schedule.mode is ScheduleMode.ASYNC and config.schedule.max_staleness != 0
    return plan if loans is None or shared or not lends else replace(plan, loans=loans / "core-loans")


def _plan_evaluator(config: RapidConfig, cores: list[int]) -> CorePlan:
    section = config.task.eval
    if section is not None and section.every is not None and section.threads is not None:
        # Somebody has to train: at least one core is left.
        own = cores[: min(section.threads, len(cores) - 1)] or cores
        return replace(_plan_training(config, cores[len(own) :] or cores), evaluator=own)
    plan = _plan_training(config, cores)
    return replace(plan, evaluator=sorted(_all_of(plan.actors)))


def _plan_training(config: RapidConfig, cores: list[int]) -> CorePlan:
    num_actors, ranks = config.actors.count, config.learner.ranks
    if config.schedule.mode is not ScheduleMode.ASYNC or len(cores) == 1:
        return CorePlan([list(cores)] * num_actors, _deal(cores, ranks))
    wanted = ranks * config.learner.threads if config.learner.threads else len(cores) // 2
    split = max(1, len(cores) - wanted)
    return CorePlan(_deal(cores[:split], num_actors), _deal(cores[split:] or cores[-1:], ranks))


def gpu_share(parts: int, gpus: int) -> float:
    """What each of so many parts asks of a GPU, so that all find a place: a whole one, or an equal share of one."""
    return 1.0 / -(-parts // gpus) if gpus else 0.0


def _all_of(shares: list[list[int] | None]) -> set[int]:
    return {core for share in shares for core in share or ()}


def _share(owners: list[list[int] | None], borrowers: int, index: int) -> list[int]:
    """What one of so many borrowers may take of the owners' cores; nothing if these are too few."""
    cores = sorted(_all_of(owners))
    return (_deal(cores, min(len(cores), borrowers))[index] or []) if index < len(cores) else []


def _deal(cores: list[int], parts: int) -> list[list[int] | None]:
    """Contiguous shares, as equal as can be; parts beyond the number of cores double up."""
    if parts >= len(cores):
        return [[cores[index % len(cores)]] for index in range(parts)]
    bounds = [round(index * len(cores) / parts) for index in range(parts + 1)]
    return [cores[low:high] for low, high in pairwise(bounds)]
