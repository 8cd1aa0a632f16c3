"""The rollout actor: turns leases into groups, without ever waiting for training.

    loop            consumes                      produces                    waits for
    receive         manifests pushed by the hub   snapshots                   the publisher
    load, turn      snapshots, phases             an engine of new version    a snapshot, its turn
    lease           room in the engine            leases                      the hub, which grants within the bound
    group, many     a lease                       Submit or Return            the engine, the reward workers, the hub
    beat            what all this comes to        heartbeats                  the clock

A group under way is a task of its own (actors.workload), so that its successor starts as soon as the engine has room,
whatever becomes of its rewards. Weights are loaded between two decoding steps while groups are under way
(actors.engine_driver).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from actors.activity import Activity
from actors.engine import Engine
from actors.engine_driver import EngineDriver
from actors.hub_link import HubLink
from actors.settings import RolloutSettings
from actors.text import ChatText
from actors.weights import WeightReceiver
from actors.workload import GOODBYE_S, Workload, cancel_all
from protocol.core_loan import Lender
from protocol.errors import ProtocolError
from protocol.messages import AnyMessage, Drain, Goodbye, Heartbeat, Lease, Phase, WeightManifest, Work
from telemetry.exporter import Exporter
from telemetry.timeline import Timeline

log = logging.getLogger(__name__)


async def run_actor(settings: RolloutSettings, stop: asyncio.Event, leave: asyncio.Event) -> None:
    """Be an actor until `stop` is set, which `leave` brings about once what is under way is done.

    Raises:
        EngineError: the engine did not start, or died.
        RefusedError: the hub does not want this actor.
        OSError: there is no room for the weights.
    """
    from tasks import build_task
    from tasks.runner import RewardRunner

    text = ChatText(settings.model_path, settings.model.system_prompt)
    engine = build_engine(settings, text.stop_token_ids)
    task = build_task(settings.task)
    runner = RewardRunner(
        settings.task, settings.actors.reward_workers, settings.actors.reward_timeout_s, all_or_nothing=True
    )
    exporter = Exporter(settings.name, settings.telemetry.facing(settings.hub_address), settings.run_dir)
    timeline = Timeline(settings.run_dir, settings.name, is_enabled=settings.telemetry.timeline)
    try:
        await Rollout(settings, task, text, engine, runner, exporter, timeline).run(stop, leave)
    finally:
        await runner.close()
        exporter.close()
        timeline.close()


def build_engine(settings: RolloutSettings, stop_token_ids: tuple[int, ...]) -> Engine:
    """The engine that `actors.engine` names, not yet started."""
    if settings.actors.engine == "scripted":
        from actors.scripted_engine import ScriptedEngine

        return ScriptedEngine(settings.model_path, settings.actors, stop_token_ids)
    from actors.vllm_engine import VllmEngine

    return VllmEngine(
        settings.model_path,
        settings.model,
        settings.actors,
        settings.weights,
        stop_token_ids,
        settings.seed,
        settings.cores,
        settings.index,
        settings.loan,
    )


class Rollout:
    """One actor; `run` is called once.

    Args:
        task: gives the prompt of an index.
        runner: rewards completions, see actors.group_maker.
        timeline: is told what the actor does; the caller closes it.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        task: Any,
        text: ChatText,
        engine: Engine,
        runner: Any,
        exporter: Exporter,
        timeline: Timeline,
    ) -> None:
        self._name, self._config = settings.name, settings.actors
        self._engine, self._timeline = engine, timeline
        self._activity = Activity(exporter)
        self._activity.on_change = self._mark
        self._lender = Lender(settings.loan)
        self._beat_now = asyncio.Event()
        self._receiver = WeightReceiver(settings.weights, settings.label)
        self._driver = EngineDriver(engine, self._receiver, self._activity, self._mark, self._beat_now.set)
        self._link = HubLink(settings.hub_address, settings.name, self._on_push, metrics_address=exporter.address or "")
        self._work = Workload(settings, task, text, engine, runner, self._activity, self._link, self._mark)
        self._is_leaving = self._is_ending = False
        self._answered = asyncio.Event()
        """Whether the hub owes no answer to a request for leases."""
        self._answered.set()

    async def run(self, stop: asyncio.Event, leave: asyncio.Event) -> None:
        """Work until `stop` is set, then hand everything back. Raises what ended the actor otherwise.

        Once `leave` is set, nothing new is begun, and `stop` is set when what is under way is done, or after
        `actors.leave_s`.
        """
        driver = self._driver
        loops = [self._greet_and_beat(), self._receiver.run(), driver.start(), driver.load(), driver.turn()]
        loops += [self._lease(), self._leave(leave, stop)]
        tasks = [asyncio.create_task(loop) for loop in loops]
        stopper = asyncio.create_task(stop.wait())
        ended: set[asyncio.Future[Any]] = {stopper, self._work.failure, *tasks}
        try:
            while not stopper.done():
                done, ended = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            await self._end([stopper, *tasks])

    def _on_push(self, message: AnyMessage) -> None:
        if isinstance(message, WeightManifest):
            self._receiver.offer(message)
        elif isinstance(message, Phase):
            self._driver.give_turn(message.generating)
            self._work.changed.set()
        elif isinstance(message, Drain):
            log.info("drained: %s", message.reason)
            self._work.is_draining = True
            if message.abandon:
                self._work.abandon()

    # --- what the actor tells -----------------------------------------------------------------------

    async def _greet_and_beat(self) -> None:
        await self._link.greet()
        while True:
            self._beat_now.clear()
            self._mark()
            await self._link.request(self._heartbeat())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.heartbeat_s):
                    await self._beat_now.wait()

    def _heartbeat(self) -> Heartbeat:
        version = self._engine.version
        step = version.step if version is not None else None
        metrics = self._activity.measure(self._engine.metrics, self._receiver.fetched_bytes, step)
        return Heartbeat(
            name=self._name,
            version=version,
            waiting_for=self._waiting_for(),
            metrics=metrics,
            leases=self._work.leases,
            is_leaving=self._is_leaving,
        )

    def _mark(self) -> None:
        """Tell the timeline what goes on, and the learner whether cores are free; called wherever that may change."""
        self._timeline.enter(*self._doing())
        is_loading = self._driver.loading is not None or not self._driver.started.is_set()
        self._lender.note(works=is_loading or self._activity.num_generating > 0)

    def _doing(self) -> tuple[str, str]:
        if self._is_ending:
            return "end", ""
        if not self._driver.started.is_set():
            return "start", "the engine"
        if self._driver.loading is not None:
            return "load", f"weights {self._driver.loading}"
        reason = self._waiting_for()
        if not self._driver.is_awake:
            return "asleep", reason
        return ("wait", reason) if reason else ("generate", f"weights {self._engine.version}")

    def _waiting_for(self) -> str:
        if not self._link.is_reachable:
            return "the hub"
        if not self._driver.started.is_set():
            return "the engine to start"
        if not self._driver.loaded.is_set():
            return "weights"
        if not self._driver.is_turn:
            return "its turn: the learner trains"
        if self._activity.num_generating:
            return ""
        if self._work.leases:
            return "rewards"
        return "nothing: drained" if self._work.is_draining else "a lease"

    # --- leases -------------------------------------------------------------------------------------

    async def _lease(self) -> None:
        await self._driver.loaded.wait()
        while True:
            num_groups = await self._wait_for_room()
            version, wait_s = self._engine.version, self._config.lease_wait_s
            assert version is not None
            lends = self._lender.lends
            lease = Lease(name=self._name, max_groups=num_groups, version=version, wait_s=wait_s, lends=lends)
            self._answered.clear()
            work = await self._link.request(lease, wait_s)
            assert isinstance(work, Work)
            for item in work.items:
                self._work.begin(item)
            self._answered.set()

    async def _wait_for_room(self) -> int:
        """Until there is something to lease for; how many groups."""
        while True:
            self._work.changed.clear()
            if self._driver.is_turn and (room := self._work.room) > 0:
                return room
            await self._work.changed.wait()

    # --- the end ------------------------------------------------------------------------------------

    async def _leave(self, asked: asyncio.Event, stop: asyncio.Event) -> None:
        await asked.wait()
        self._is_leaving = self._work.is_draining = True
        # So that those that stay get the leases that this one would have been given.
        self._beat_now.set()
        log.info("asked to leave, with %d groups to finish", len(self._work.leases))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.leave_s):
                # What is granted meanwhile is handed back; after a goodbye it would count as lost.
                await self._answered.wait()
                await self._work.wait_until_empty()
        stop.set()

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._is_ending = True
        self._mark()
        await cancel_all(tasks)
        await self._work.close()
        # A hub that hears no goodbye notices the silence, later.
        with contextlib.suppress(ProtocolError):
            await self._link.say(Goodbye(name=self._name), GOODBYE_S)
        await self._engine.close()
        self._lender.close()
        await self._receiver.close()
        await self._link.close()
