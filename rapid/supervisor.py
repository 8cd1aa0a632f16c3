"""Starts the parts of a run on Ray, watches them, replaces actors that die, and brings the run to its end.

hub       must live: without it the run fails
learner   must live: the run ends when it has done its last step, and fails when it dies
actors    may die at any time and may be more or fewer at any time, see rapid.fleet
evaluator may die at any time; the run goes on without it, see rapid.evaluator
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from learner.settings import PROCESS_ENVIRONMENT, LearnerSettings
from rapid.cluster import reserve
from rapid.errors import RunFailedError, StartInterruptedError
from rapid.evaluator import EvaluatorKeeper
from rapid.failures import cause, outcome
from rapid.fleet import Fleet
from rapid.parts import HubPart, LearnerPart
from rapid.placement import CorePlan, gpu_share, plan_cores
from rapid.preflight import Plan

_HUB_CPUS = 0.1
_LOCAL_CPUS = 0.01
"""On one machine cores are divided by `plan_cores`, and Ray's count of them would only refuse."""
_RESOURCE_SHARE = 0.001
_END_TIMEOUT_S = 30.0
_CHECKPOINT_TIMEOUT_S = 300.0
_LOOK_S = 0.5
"""Between two looks whether the user has asked for the end, while a part starts."""


@dataclass
class Supervisor:
    """The parts of one run. Used in this order: start, poll until it says done, end."""

    plan: Plan
    on_cluster: bool
    tell: Callable[[str], None]
    """Called with each thing that happens which the user should hear of."""
    is_interrupted: Callable[[], bool] = lambda: False
    """Whether the user has asked for the end; looked at while parts wait for a place, and while they start."""
    hub_address: str = ""
    _fleet: Fleet | None = None
    _evaluator: EvaluatorKeeper | None = None
    _learner_tasks: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Place and start everything.

        Raises:
            RunFailedError: Ray has no place, or a part does not start.
            StartInterruptedError: `is_interrupted` says so.
        """
        config = self.plan.config
        names, bundles = self._bundles()
        self._group = reserve(bundles, names, config.run.start_timeout_s, self.tell, self.is_interrupted)
        self._cores = (
            CorePlan([None], [None] * config.learner.ranks)
            if self.on_cluster
            else plan_cores(config, loans=self.plan.run_dir)
        )
        if self._cores.loans is not None:
            # What a run before has left there is not true any more.
            self._cores.loans.unlink(missing_ok=True)
        self._start_hub()
        self._start_learner()
        self._fleet = Fleet(self.plan, self._cores, self._actor_options(), self.hub_address, self.tell)
        self._fleet.resize(config.actors.count)
        if self._evaluates:
            self._evaluator = EvaluatorKeeper(
                self.plan, self._cores, self._evaluator_options(), self.hub_address, self.tell
            )
            self._evaluator.start()

    @property
    def fleet(self) -> Fleet:
        """The actors, once `start` has returned."""
        assert self._fleet is not None, "not started"
        return self._fleet

    @property
    def _evaluates(self) -> bool:
        section = self.plan.config.task.eval
        return section is not None and section.every is not None

    @property
    def is_evaluator_gone(self) -> bool:
        """Whether no evaluation will come any more, though the run should have some."""
        return self._evaluator is not None and self._evaluator.is_gone

    def _bundles(self) -> tuple[list[str], list[dict[str, float]]]:
        """The parts that must all be there, and what each asks of Ray."""
        config = self.plan.config
        cpus = float(config.learner.threads or 1) if self.on_cluster else _LOCAL_CPUS
        rank = {"CPU": cpus, **self._gpu(config.learner.gpus), **self._dedicated(config.learner.resource)}
        hub = {"CPU": _HUB_CPUS if self.on_cluster else _LOCAL_CPUS, **self._dedicated(config.learner.resource)}
        names = ["hub", *(f"learner-{index}" for index in range(config.learner.ranks))]
        return names, [hub, *([rank] * config.learner.ranks)]

    def _actor_options(self) -> dict[str, Any]:
        config = self.plan.config.actors
        return {
            "num_cpus": config.cpus if self.on_cluster else _LOCAL_CPUS,
            "num_gpus": self._gpu(config.gpus).get("GPU", 0),
            "resources": self._dedicated(config.resource),
        }

    def _evaluator_options(self) -> dict[str, Any]:
        config = self.plan.config
        assert config.task.eval is not None
        return {
            "num_cpus": float(config.task.eval.threads or 1) if self.on_cluster else _LOCAL_CPUS,
            "num_gpus": self._gpu(config.task.eval.gpus).get("GPU", 0),
            "resources": self._dedicated(config.actors.resource),
        }

    def _gpu(self, asked: float | None) -> dict[str, float]:
        config = self.plan.config
        parts = config.learner.ranks + config.actors.count + self._evaluates
        there = int(ray.cluster_resources().get("GPU", 0))
        share = gpu_share(parts, there) if asked is None else asked
        return {"GPU": share} if share else {}

    def _dedicated(self, resource: str | None) -> dict[str, float]:
        """A trifle of the resource that only the nodes for this part offer, so that no other node will do.

        A Ray of the run's own has one node, which is for all.
        """
        return {resource: _RESOURCE_SHARE} if resource and self.on_cluster else {}

    def _options(self, bundle: int) -> dict[str, Any]:
        resources = self._group.bundle_specs[bundle]
        return {
            "num_cpus": resources["CPU"],
            "num_gpus": resources.get("GPU", 0),
            "resources": {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")},
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
            evaluate_every=config.task.eval.every if config.task.eval is not None else None,
        )
        self.hub_address = self._wait_for(start, "the hub")
        self._hub_task = self._hub.run.remote()

    def _host(self) -> str | None:
        host = self.plan.config.run.host
        if host != "auto":
            return host
        return None if self.on_cluster else "127.0.0.1"

    def _wait_for(self, reference: Any, what: str) -> Any:
        limit_s = self.plan.config.run.start_timeout_s
        begin_s = time.monotonic()
        while not ray.wait([reference], timeout=min(_LOOK_S, limit_s))[0]:
            if self.is_interrupted():
                raise StartInterruptedError(f"{what} started")
            if time.monotonic() - begin_s >= limit_s:
                raise RunFailedError(
                    f"{what} did not start within {limit_s:.0f} s; its log is in {self.plan.run_dir / 'logs'}. Raise "
                    "run.start_timeout_s if it was only slow"
                )
        try:
            return ray.get(reference)
        except RayError as error:
            raise RunFailedError(f"{what} did not start: {cause(error)}") from error

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
            loan=self._cores.learner_loan(rank),
            eval_wait_s=config.task.eval.end_wait_s if config.task.eval is not None and self._evaluates else None,
            **values,
        )

    def poll(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for something to end. True once the learner is done.

        Raises:
            RunFailedError: the hub or the learner died, every actor is beyond its restarts, or too few find a place.
        """
        evaluator = self._evaluator.tasks() if self._evaluator is not None else []
        watched = [self._hub_task, *self._learner_tasks, *self.fleet.tasks(), *evaluator]
        ended, _ = ray.wait(watched, num_returns=1, timeout=timeout_s)
        for reference in ended:
            if reference is self._hub_task:
                raise RunFailedError(f"the hub ended: {outcome(reference)}")
            if reference in self._learner_tasks:
                return self._finish_learner()
            if self._evaluator is not None and reference in evaluator:
                self._evaluator.ended()
            else:
                self.fleet.ended(reference)
        self.fleet.watch()
        return False

    def _finish_learner(self) -> bool:
        try:
            ray.get(self._learner_tasks, timeout=_END_TIMEOUT_S)
        except RayError as error:
            raise RunFailedError(f"the learner died: {cause(error)}") from error
        return True

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
        try:
            ray.get(self._hub.drain.remote("the run ends"), timeout=_END_TIMEOUT_S)
            if self._evaluator is not None:
                self._evaluator.stop(_END_TIMEOUT_S)
            if self._fleet is not None:
                self._fleet.stop(_END_TIMEOUT_S)
            ray.get(self._hub.stop.remote(), timeout=_END_TIMEOUT_S)
            ray.get(self._hub_task, timeout=_END_TIMEOUT_S)
        except RayError as error:
            self.tell(f"the end was not clean: {cause(error)}")
