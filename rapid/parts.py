"""The processes of a run as Ray actors: a thin wrapper each, so that no other folder knows of Ray.

Heavy imports (torch, vllm, deepspeed) happen in the methods, inside the process that needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import ray

from buffer.config import BufferConfig
from learner.settings import LearnerSettings
from protocol.config import ScheduleConfig
from telemetry.catalogue import HUB_STALL_LIMIT
from telemetry.config import TelemetryConfig
from telemetry.exporter import Exporter
from telemetry.logs import setup_logging


def own_address(on_cluster: bool) -> str:
    """The address at which other parts reach this process's node."""
    return ray.util.get_node_ip_address() if on_cluster else "127.0.0.1"


def _begin_logging(name: str, run_dir: Path, telemetry: TelemetryConfig) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)  # on another node of a cluster it is not there yet
    setup_logging(name, run_dir, telemetry.log_level, telemetry.log_format)


def _model_here(path: Path, name: str) -> Path:
    """The model's folder on this node, made or fetched first where only the launcher's node has it."""
    if path.is_dir():
        return path
    from rapid.models import prepare_model

    return prepare_model(name)


@ray.remote(max_restarts=0)
class HubPart:
    """The buffer service."""

    def __init__(self, run_dir: Path, telemetry: TelemetryConfig) -> None:
        _begin_logging("hub", run_dir, telemetry)
        self._run_dir, self._telemetry = run_dir, telemetry
        self._stop = asyncio.Event()

    async def start(
        self,
        *,
        config: BufferConfig,
        schedule: ScheduleConfig,
        batch_groups: int,
        num_prompts: int,
        seed: int,
        host: str | None,
        state: dict[str, object] | None,
        model: str,
        evaluate_every: int | None,
    ) -> str:
        """Listen; returns the address that the other parts connect to. `host` None takes the node's own."""
        from buffer.service import Hub

        host = host or own_address(on_cluster=True)
        address = f"tcp://{host}:{config.port or '*'}"
        # Metrics are served where the hub is.
        telemetry = self._telemetry.facing(f"tcp://{host}:1")
        self._exporter = Exporter("hub", telemetry, self._run_dir)
        self._exporter.set(HUB_STALL_LIMIT, telemetry.stall_s)
        self._hub = Hub(
            config=config,
            schedule=schedule,
            batch_groups=batch_groups,
            num_prompts=num_prompts,
            seed=seed,
            address=address,
            state=state,
            run_dir=self._run_dir,
            model=model,
            evaluate_every=evaluate_every,
            exporter=self._exporter,
        )
        return self._hub.address

    async def run(self) -> None:
        """Serve until `stop`."""
        try:
            await self._hub.serve(self._stop)
        finally:
            self._exporter.close()

    async def drain(self, reason: str) -> None:
        """Ask the actors to hand back their leases and end."""
        await self._hub.drain(reason)

    async def stop(self) -> None:
        """End `run`, after the ledger was written."""
        self._stop.set()


@ray.remote(max_restarts=0, max_concurrency=2)
class LearnerPart:
    """One rank of the learner."""

    def __init__(self, rank: int, run_dir: Path, telemetry: TelemetryConfig) -> None:
        _begin_logging(f"learner-{rank}", run_dir, telemetry)
        self._stop = threading.Event()

    def rendezvous(self, on_cluster: bool) -> tuple[str, int]:
        """Address and free port at which the ranks may meet."""
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("", 0))
            return own_address(on_cluster), probe.getsockname()[1]

    def run(self, settings: LearnerSettings, host: str | None) -> None:
        """Train until `schedule.steps` or `stop`. Weights are served at `host`; None takes the node's own."""
        from learner.loop import run_learner

        found = {
            "publish_host": host or own_address(on_cluster=True),
            "model_path": str(_model_here(Path(settings.model_path), settings.model.path)),
        }
        run_learner(settings.model_copy(update=found), self._stop)

    def stop(self) -> None:
        """End after the step under way, with a checkpoint."""
        self._stop.set()


@ray.remote(max_restarts=0)
class ActorPart:
    """One rollout actor."""

    def __init__(self, name: str, run_dir: Path, telemetry: TelemetryConfig) -> None:
        _begin_logging(name, run_dir, telemetry)
        self._stop, self._leave = asyncio.Event(), asyncio.Event()

    async def run(self, settings: Any) -> None:
        """Generate until the hub drains or `stop`. `settings` is an `actors.rollout.RolloutSettings`."""
        from actors.rollout import run_actor

        model_path = _model_here(settings.model_path, settings.model.path)
        await run_actor(settings.model_copy(update={"model_path": model_path}), self._stop, self._leave)

    async def placed(self) -> str:
        """Answers, with the node's name, once Ray has found a place and the process lives."""
        return socket.gethostname()

    async def leave(self) -> None:
        """Finish the groups under way, up to `actors.leave_s`, then end."""
        self._leave.set()

    async def stop(self) -> None:
        """End: hand back the leases and close the engine."""
        self._stop.set()


@ray.remote(max_restarts=0)
class EvaluatorPart:
    """The process that evaluates weights while the run goes on."""

    def __init__(self, name: str, run_dir: Path, telemetry: TelemetryConfig) -> None:
        _begin_logging(name, run_dir, telemetry)
        self._stop = asyncio.Event()

    async def run(self, settings: Any) -> None:
        """Evaluate until `stop`. `settings` is an `actors.settings.RolloutSettings`."""
        from actors.evaluation.evaluator import run_evaluator

        model_path = _model_here(settings.model_path, settings.model.path)
        await run_evaluator(settings.model_copy(update={"model_path": model_path}), self._stop)

    async def stop(self) -> None:
        """End: close the engine."""
        self._stop.set()
