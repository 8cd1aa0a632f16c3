"""Starts the parts of a run on Ray, watches them, replaces actors that die, and brings the run to its end.

    hub       must live: without it the run fails
    learner   must live: the run ends when it has done its last step, and fails when it dies
    actors    may die at any time: the hub takes back what they held, and a new one starts in their place

Restarts go through here rather than through Ray's `max_restarts`, so that each is counted, told and limited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from learner.settings import PROCESS_ENVIRONMENT, LearnerSettings
from rapid.cluster import reserve
from rapid.errors import RunFailedError
from rapid.parts import ActorPart, HubPart, LearnerPart
from rapid.placement import CorePlan, gpu_share, plan_cores
from rapid.preflight import Plan

_HUB_CPUS = 0.1
_END_TIMEOUT_S = 30.0
_CHECKPOINT_TIMEOUT_S = 300.0


@dataclass
class _Rollout:
    """One rollout actor and how often it was started."""

    index: int
    bundle: int
    handle: Any = None
    task: Any = None
    starts: int = 0

    @property
    def name(self) -> str:
        """As the hub and the logs know it."""
        return f"actor-{self.index}"


@dataclass
class Supervisor:
    """The parts of one run. Used in this order: start, poll until it says done, end."""

    plan: Plan
    on_cluster: bool
    tell: Callable[[str], None]
    """Called with each thing that happens which the user should hear of."""
    hub_address: str = ""
    _rollouts: list[_Rollout] = field(default_factory=list)
    _learner_tasks: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Place and start everything. Raises RunFailedError when Ray has no place."""
        config = self.plan.config
        names, bundles = self._bundles()
        self._group = reserve(bundles, names, config.run.start_timeout_s)
        self._cores = CorePlan([None], [None] * config.learner.ranks) if self.on_cluster else plan_cores(config)
        self._start_hub()
        self._start_learner()
        self._rollouts = [_Rollout(index, 1 + config.learner.ranks + index) for index in range(config.actors.count)]
        for rollout in self._rollouts:
            self._start_actor(rollout)

    def _bundles(self) -> tuple[list[str], list[dict[str, float]]]:
        config = self.plan.config
        ranks = [f"learner-{rank}" for rank in range(config.learner.ranks)]
        actors = [f"actor-{index}" for index in range(config.actors.count)]
        share = gpu_share(len(ranks + actors), int(ray.cluster_resources().get("GPU", 0)))
        gpu = {"GPU": share} if share else {}
        # On one machine cores are divided by `plan_cores`, and Ray's count of them would only refuse.
        threads = float(config.learner.threads or 1) if self.on_cluster else 1.0
        rank_place, actor_place = {"CPU": threads, **gpu}, {"CPU": 1.0, **gpu}
        places = [{"CPU": _HUB_CPUS}, *([rank_place] * len(ranks)), *([actor_place] * len(actors))]
        return ["hub", *ranks, *actors], places

    def _options(self, bundle: int) -> dict[str, Any]:
        resources = self._group.bundle_specs[bundle]
        return {
            "num_cpus": resources["CPU"],
            "num_gpus": resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle),
        }

    def _start_hub(self) -> None:
        config, resume = self.plan.config, self.plan.resume
        self._hub = HubPart.options(**self._options(0)).remote(self.plan.run_dir, config.telemetry)
        start = self._hub.start.remote(
            config=config.buffer,
            schedule=config.schedule,
            batch_groups=config.learner.batch_groups,
            num_prompts=self.plan.num_prompts,
            seed=config.run.seed,
            host=self._host(),
            state=resume.ledger if resume else None,
            model=Path(config.model.path).name,
        )
        self.hub_address = self._wait_for(start, "the hub")
        self._hub_task = self._hub.run.remote()

    def _host(self) -> str | None:
        host = self.plan.config.run.host
        if host != "auto":
            return host
        return None if self.on_cluster else "127.0.0.1"

    def _wait_for(self, reference: Any, what: str) -> Any:
        try:
            return ray.get(reference, timeout=self.plan.config.run.start_timeout_s)
        except RayError as error:
            raise RunFailedError(f"{what} did not start: {_cause(error)}") from error

    def _start_learner(self) -> None:
        config = self.plan.config
        self._ranks = [
            LearnerPart.options(**self._options(1 + rank), runtime_env={"env_vars": dict(PROCESS_ENVIRONMENT)}).remote(
                rank, self.plan.run_dir, config.telemetry
            )
            for rank in range(config.learner.ranks)
        ]
        meeting = self._wait_for(self._ranks[0].rendezvous.remote(self.on_cluster), "the learner")
        self._learner_tasks = [
            handle.run.remote(self._learner_settings(rank, meeting), self._host())
            for rank, handle in enumerate(self._ranks)
        ]

    def _learner_settings(self, rank: int, meeting: tuple[str, int]) -> LearnerSettings:
        config, resume = self.plan.config, self.plan.resume
        values: dict[str, Any] = {} if resume is None else {"resume_from": resume.path, "lineage": resume.lineage}
        return LearnerSettings(
            hub_address=self.hub_address,
            model_path=str(self.plan.model_dir),
            model=config.model,
            learner=config.learner,
            algorithm=config.algorithm,
            schedule=config.schedule,
            weights=config.weights,
            telemetry=config.telemetry,
            temperature=config.actors.temperature,
            group_size=config.actors.group_size,
            seed=config.run.seed,
            rank=rank,
            world_size=config.learner.ranks,
            master_address=meeting[0],
            master_port=meeting[1],
            run_dir=self.plan.run_dir,
            # One GPU process an actor.
            weight_receivers=config.actors.count,
            cores=self._cores.learner[rank],
            **values,
        )

    def _start_actor(self, rollout: _Rollout) -> None:
        from actors.settings import RolloutSettings

        config = self.plan.config
        rollout.starts += 1
        rollout.handle = ActorPart.options(**self._options(rollout.bundle)).remote(
            rollout.name, self.plan.run_dir, config.telemetry
        )
        settings = RolloutSettings(
            name=rollout.name,
            hub_address=self.hub_address,
            model_path=self.plan.model_dir,
            model=config.model,
            actors=config.actors,
            weights=config.weights,
            schedule=config.schedule,
            task=config.task,
            telemetry=config.telemetry,
            seed=self._actor_seed(rollout),
            cores=self._cores.actor(rollout.index),
            run_dir=self.plan.run_dir,
        )
        rollout.task = rollout.handle.run.remote(settings)

    def _actor_seed(self, rollout: _Rollout) -> int:
        """vLLM draws all its numbers from one seed, so that each start of each actor needs one of its own.

        The scripted engine draws by prompt, so that it must not matter which actor generates it.
        """
        config = self.plan.config
        if config.actors.engine == "scripted":
            return config.run.seed
        return config.run.seed + rollout.index + config.actors.count * (rollout.starts - 1)

    def poll(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for something to end. True once the learner is done.

        Raises:
            RunFailedError: the hub or the learner died, or every actor is beyond its restarts.
        """
        watched = [self._hub_task, *self._learner_tasks, *(r.task for r in self._rollouts if r.task is not None)]
        ended, _ = ray.wait(watched, num_returns=1, timeout=timeout_s)
        for reference in ended:
            if reference is self._hub_task:
                raise RunFailedError(f"the hub ended: {_outcome(reference)}")
            if reference in self._learner_tasks:
                return self._finish_learner()
            self._replace(next(rollout for rollout in self._rollouts if rollout.task == reference))
        return False

    def _finish_learner(self) -> bool:
        try:
            ray.get(self._learner_tasks, timeout=_END_TIMEOUT_S)
        except RayError as error:
            raise RunFailedError(f"the learner died: {_cause(error)}") from error
        return True

    def _replace(self, rollout: _Rollout) -> None:
        outcome = _outcome(rollout.task)
        rollout.task = None
        if rollout.starts <= self.plan.config.actors.restarts:
            self.tell(f"{rollout.name} ended ({outcome}); starting it anew, start {rollout.starts + 1}")
            self._start_actor(rollout)
            return
        self.tell(f"{rollout.name} ended ({outcome}); not started again after {rollout.starts} starts")
        if all(other.task is None for other in self._rollouts):
            raise RunFailedError(
                f"no actor is left; the last one, {rollout.name}, ended: {outcome}. "
                f"Its log is in {self.plan.run_dir / 'logs'}"
            )

    def stop(self) -> None:
        """Ask the learner to end after its step, with a checkpoint. `poll` then says when it has."""
        for handle in self._ranks:
            handle.stop.remote()

    def keep_progress(self) -> None:
        """The run fails for want of actors: let the learner write what it has done before everything is ended."""
        hub_ended, _ = ray.wait([self._hub_task], timeout=0) if self.hub_address else ([True], [])
        if hub_ended or not self._learner_tasks:
            return
        self.stop()
        ray.wait(self._learner_tasks, num_returns=len(self._learner_tasks), timeout=_CHECKPOINT_TIMEOUT_S)

    def end(self) -> None:
        """After the learner is done: drain the actors, let the hub write the ledger, end all processes."""
        if not self.hub_address:
            return
        tasks = [rollout.task for rollout in self._rollouts if rollout.task is not None]
        try:
            ray.get(self._hub.drain.remote("the run ends"), timeout=_END_TIMEOUT_S)
            for rollout in self._rollouts:
                rollout.handle.stop.remote()
            if tasks:
                ray.wait(tasks, num_returns=len(tasks), timeout=_END_TIMEOUT_S)
            ray.get(self._hub.stop.remote(), timeout=_END_TIMEOUT_S)
            ray.get(self._hub_task, timeout=_END_TIMEOUT_S)
        except RayError as error:
            self.tell(f"the end was not clean: {_cause(error)}")


def _outcome(reference: Any) -> str:
    try:
        ray.get(reference)
    except RayError as error:
        return _cause(error)
    return "without an error"


def _cause(error: RayError) -> str:
    if isinstance(error, RayActorError):
        # What was raised while the part was made stands in the last line of Ray's text; of a death there is no more.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[-1] if "creation task" in str(error) else "its process died"
    cause = getattr(error, "cause", None)
    # Ray's own texts go on with pages of advice; the first line is what happened.
    return f"{type(cause).__name__}: {cause}" if cause is not None else str(error).strip().splitlines()[0]
