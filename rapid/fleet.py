"""The rollout actors of a run as processes on Ray: started, replaced when they die, more or fewer at any time.

    waits for a place ──► lives ──► leaves ──► gone
                            └─ dies ──► waits for a place again, `actors.restarts` times

Restarts go through here rather than through Ray's `max_restarts`, so that each is counted, told and limited.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from protocol.status import FleetStatus
from rapid.errors import RunFailedError
from rapid.failures import CLEAN, outcome
from rapid.parts import ActorPart
from rapid.placement import CorePlan
from rapid.preflight import Plan

_TELL_S = (10.0, 30.0)
"""When an actor's wait for a place is told first; then whenever it has tripled, beginning with the second."""
_LEAVE_GRACE_S = 30.0
LIVED_WELL_S = 600.0
"""An actor that lived so long may be restarted as often as a new one: nodes of a cluster come and go."""
_SLOW_START_S = 60.0
"""A process may take so long to start where there is room for it."""
_SEEDS_BETWEEN_STARTS = 1009


@dataclass(eq=False)
class _Rollout:
    """One rollout actor and how often it was started."""

    index: int
    handle: Any = None
    task: Any = None
    placed: Any = None
    """Answered once it has a place; None afterwards."""
    starts: int = 0
    asked_s: float = 0.0
    placed_s: float | None = None
    """When it had found a place."""
    tell_s: float = _TELL_S[0]
    leave_s: float | None = None
    """When it was asked to leave."""

    @property
    def name(self) -> str:
        """As the hub and the logs know it."""
        return f"actor-{self.index}"

    @property
    def is_pending(self) -> bool:
        """Whether it waits for a place."""
        return self.placed is not None


@dataclass
class Fleet:
    """The actors. Used in this order: `resize`, `watch` and `tasks` until the run ends, `stop`."""

    plan: Plan
    cores: CorePlan
    options: dict[str, Any]
    """What one actor asks of Ray."""
    hub_address: str
    tell: Callable[[str], None]
    """Called with each thing that happens which the user should hear of."""
    clock: Callable[[], float] = time.monotonic
    restarted: int = 0
    """Actors that were started anew after they had died."""
    _wanted: int = 0
    _rollouts: list[_Rollout] = field(default_factory=list)
    _starts: Counter[int] = field(default_factory=Counter)

    @property
    def _staying(self) -> list[_Rollout]:
        return [rollout for rollout in self._rollouts if rollout.leave_s is None and rollout.task is not None]

    def tasks(self) -> list[Any]:
        """One reference for each actor, which is done when the actor has ended."""
        return [rollout.task for rollout in self._rollouts if rollout.task is not None]

    def resize(self, wanted: int, *, renew: bool = False) -> None:
        """Start actors, or ask some to leave, until so many stay. Those that wait for a place go first.

        The same number again changes nothing, so that an actor beyond its restarts stays away, unless `renew`.
        """
        if wanted == self._wanted and not renew:
            return
        self._wanted = wanted
        self._rollouts = [rollout for rollout in self._rollouts if rollout.task is not None]
        staying = self._staying
        for _ in range(wanted - len(staying)):
            taken = {rollout.index for rollout in self._rollouts}
            rollout = _Rollout(next(index for index in itertools.count() if index not in taken))
            self._rollouts.append(rollout)
            self._start(rollout)
        by_worth = sorted(staying, key=lambda rollout: (rollout.is_pending, rollout.index))
        for rollout in by_worth[wanted:]:
            self._dismiss(rollout)

    def _start(self, rollout: _Rollout) -> None:
        config = self.plan.config
        rollout.starts += 1
        self._starts[rollout.index] += 1
        rollout.asked_s, rollout.placed_s, rollout.tell_s = self.clock(), None, _TELL_S[0]
        rollout.handle = ActorPart.options(**self.options).remote(rollout.name, self.plan.run_dir, config.telemetry)
        settings = self.plan.rollout_settings(
            rollout.name,
            self.hub_address,
            self._seed(rollout.index),
            self.cores.actor(rollout.index),
            self.cores.actor_loan(rollout.index),
        )
        rollout.placed = rollout.handle.placed.remote()
        rollout.task = rollout.handle.run.remote(settings)

    def _seed(self, index: int) -> int:
        """vLLM draws all its numbers from one seed, so that each start of each actor needs one of its own.

        The scripted engine draws by prompt, so that it must not matter which actor generates it.
        """
        config = self.plan.config
        if config.actors.engine == "scripted":
            return config.run.seed
        return config.run.seed + index + _SEEDS_BETWEEN_STARTS * (self._starts[index] - 1)

    def _dismiss(self, rollout: _Rollout) -> None:
        if rollout.is_pending:
            self._forget(rollout)
            self.tell(f"{rollout.name} is not wanted any more; it had no place yet")
            return
        rollout.leave_s = self.clock()
        rollout.handle.leave.remote()
        self.tell(f"{rollout.name} leaves: it finishes its groups first")

    def _forget(self, rollout: _Rollout) -> None:
        ray.kill(rollout.handle)
        self._rollouts.remove(rollout)

    # --- while the run goes on ----------------------------------------------------------------------

    def ended(self, task: Any) -> None:
        """The actor of this task has ended. Raises RunFailedError when none is left that could go on."""
        rollout = next(rollout for rollout in self._rollouts if rollout.task == task)
        how = outcome(task)
        if rollout.placed_s is not None and self.clock() - rollout.placed_s > LIVED_WELL_S:
            rollout.starts = 0  # What ended it now has nothing to do with how it started.
        if rollout.leave_s is not None:
            self._rollouts.remove(rollout)
            self.tell(f"{rollout.name} has left" + (f", but not as asked: {how}" if how != CLEAN else ""))
        elif rollout.starts <= self.plan.config.actors.restarts:
            self.restarted += 1
            self.tell(f"{rollout.name} ended ({how}); starting it anew, start {rollout.starts + 1}")
            self._start(rollout)
        else:
            rollout.task = rollout.placed = None
            self.tell(f"{rollout.name} ended ({how}); not started again after {rollout.starts} starts")
        if not self.tasks():
            raise RunFailedError(
                f"no actor is left; the last one, {rollout.name}, ended: {how}. "
                f"Its log is in {self.plan.run_dir / 'logs'}"
            )

    def watch(self) -> None:
        """See who has found a place, tell who waits for one, end who does not leave.

        Raises RunFailedError when fewer than `actors.min` have found one within `run.start_timeout_s`.
        """
        now = self.clock()
        for rollout in list(self._rollouts):
            if rollout.is_pending and ray.wait([rollout.placed], timeout=0)[0]:
                rollout.placed, rollout.placed_s = None, now
            elif rollout.is_pending:
                self._tell_wait(rollout, now - rollout.asked_s)
            elif rollout.leave_s is not None and now - rollout.leave_s > self._patience_s:
                self.tell(f"{rollout.name} has not left after {self._patience_s:.0f} s and is ended")
                self._forget(rollout)

    @property
    def _patience_s(self) -> float:
        return self.plan.config.actors.leave_s + _LEAVE_GRACE_S

    def _tell_wait(self, rollout: _Rollout, waited_s: float) -> None:
        if waited_s >= rollout.tell_s:
            rollout.tell_s = max(_TELL_S[1], 3 * rollout.tell_s)
            self.tell(f"{rollout.name} {self._wait_text(waited_s)}")
        limit_s, least = self.plan.config.run.start_timeout_s, self.plan.config.actors.min
        placed = [other for other in self._staying if not other.is_pending]
        if waited_s > limit_s and len(placed) < least:
            raise RunFailedError(
                f"{len(placed)} of at least {least} actors have a place: {rollout.name} {self._wait_text(waited_s)}. "
                "Add nodes, lower actors.cpus or actors.min, or raise run.start_timeout_s"
            )

    def _wait_text(self, waited_s: float) -> str:
        free = {name: round(amount, 3) for name, amount in ray.available_resources().items() if name in self.needs}
        return f"waits for a place with {self.needs} for {waited_s:.0f} s; free in the cluster: {free or 'nothing'}"

    @property
    def needs(self) -> dict[str, float]:
        """Resources of one actor, by Ray's names."""
        options = self.options
        named = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0), **options.get("resources", {})}
        return {name: amount for name, amount in named.items() if amount}

    def room(self) -> int:
        """Actors that the cluster could place besides those there are; negative where some wait in vain."""
        pending = [rollout for rollout in self._staying if rollout.is_pending]
        if pending:
            return -sum(self.clock() - rollout.asked_s > _SLOW_START_S for rollout in pending)
        return sum(_places(free, self.needs) for free in available_resources_per_node().values())

    def fitting(self) -> int:
        """Actors that the nodes there are could hold if nothing else ran on them, and no fewer than `actors.count`."""
        config = self.plan.config.actors
        # On one machine an actor asks Ray for next to no CPU (rapid.supervisor); what it would ask of a cluster counts.
        needs = {**self.needs, "CPU": config.cpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return max(config.count, sum(_places(node, needs) for node in nodes))

    def status(self, wanted: int, scaling: str, advised: int | None, advice: str) -> FleetStatus:
        """The account that the hub passes on."""
        pending = [rollout for rollout in self._staying if rollout.is_pending]
        config = self.plan.config.actors
        is_fixed = self.plan.config.weights.transport != "zmq"
        return FleetStatus(
            wanted=wanted,
            running=len(self._staying) - len(pending),
            pending=len(pending),
            leaving=sum(rollout.leave_s is not None for rollout in self._rollouts),
            least=config.count if is_fixed else config.min,
            most=config.count if is_fixed else config.max,
            fitting=None if is_fixed or config.max is not None else self.fitting(),
            scaling=scaling,
            advised=advised,
            advice=advice,
            waiting_for=f"{pending[0].name} {self._wait_text(self.clock() - pending[0].asked_s)}" if pending else "",
        )

    def stop(self, timeout_s: float) -> None:
        """Ask all to end, and wait for it."""
        for rollout in self._rollouts:
            if rollout.is_pending:
                ray.kill(rollout.handle)
            elif rollout.task is not None:
                rollout.handle.stop.remote()
        tasks = [rollout.task for rollout in self._rollouts if rollout.task is not None and not rollout.is_pending]
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=timeout_s)


def _places(node: dict[str, float], needs: dict[str, float]) -> int:
    """Actors that one node could hold; the CPUs of one and the GPU of another make no place."""
    return min((int(node.get(name, 0.0) / amount) for name, amount in needs.items()), default=0)
