"""The rollout actor: turns leases into groups, without ever waiting for training.

    loop            consumes                      produces                    waits for
    receive         manifests pushed by the hub   snapshots                   the publisher
    load            snapshots                     an engine of new version    a snapshot, its turn
    lease           room in the engine            leases                      the hub, which grants within the bound
    group, many     a lease                       Submit or Return            the engine, the reward workers, the hub
    beat            what all this comes to        heartbeats                  the clock

A group under way is a task of its own, so that its successor starts as soon as the engine has room, whatever becomes of
its rewards. Weights are loaded between two decoding steps while groups are under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any

from actors.activity import Activity
from actors.engine import Engine, WeightSnapshot
from actors.group_maker import GroupFailedError, GroupMaker
from actors.hub_link import HubLink
from actors.settings import RolloutSettings
from actors.text import ChatText
from actors.weights import WeightReceiver
from protocol.errors import ProtocolError, RefusedError
from protocol.messages import (
    AnyMessage,
    Drain,
    Goodbye,
    Heartbeat,
    Lease,
    Phase,
    Return,
    Submit,
    WeightManifest,
    Work,
    WorkItem,
)
from protocol.version import PolicyVersion
from telemetry.exporter import Exporter
from telemetry.timeline import Timeline

log = logging.getLogger(__name__)

_GOODBYE_S = 2.0
_CANCEL_AGAIN_S = 0.2


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
        self._engine = engine
        self._timeline = timeline
        self._activity = Activity(exporter)
        self._activity.on_change = self._mark
        self._room_changed, self._beat_now = asyncio.Event(), asyncio.Event()
        self._maker = GroupMaker(settings, task, text, engine, runner, self._activity, self._leave_engine)
        self._receiver = WeightReceiver(settings.weights, settings.name)
        self._link = HubLink(settings.hub_address, settings.name, self._on_push, metrics_address=exporter.address or "")
        self._groups: dict[str, asyncio.Task[None]] = {}
        self._undrawn: set[str] = set()  # leases whose tokens are not all drawn, begun or not
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._draining = self._is_ending = False
        self._loading: PolicyVersion | None = None
        self._started, self._loaded, self._awake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._awake.set()
        self._turn_lock = asyncio.Lock()
        self._engine_awake = asyncio.Event()
        self._engine_awake.set()
        self._phase_changed = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, stop: asyncio.Event, leave: asyncio.Event) -> None:
        """Work until `stop` is set, then hand everything back. Raises what ended the actor otherwise.

        Once `leave` is set, nothing new is begun, and `stop` is set when what is under way is done, or after
        `actors.leave_s`.
        """
        loops = [self._greet_and_beat(), self._receiver.run(), self._start(), self._load(), self._lease(), self._turn()]
        loops.append(self._leave(leave, stop))
        tasks = [asyncio.create_task(loop) for loop in loops]
        stopper = asyncio.create_task(stop.wait())
        ended: set[asyncio.Future[Any]] = {stopper, self._failure, *tasks}
        try:
            while not stopper.done():
                done, ended = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            await self._end([stopper, *tasks])

    # --- what the hub pushes ------------------------------------------------------------------------

    def _on_push(self, message: AnyMessage) -> None:
        if isinstance(message, WeightManifest):
            self._receiver.offer(message)
        elif isinstance(message, Phase):
            (self._awake.set if message.generating else self._awake.clear)()
            self._phase_changed.set()
            self._room_changed.set()
        elif isinstance(message, Drain):
            log.info("drained: %s", message.reason)
            self._draining = True
            if message.abandon:
                for task in self._groups.values():
                    task.cancel()

    # --- loops --------------------------------------------------------------------------------------

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
            leases=list(self._groups),
        )

    def _mark(self) -> None:
        """Tell the timeline what goes on; called wherever that may have changed."""
        self._timeline.enter(*self._doing())

    def _doing(self) -> tuple[str, str]:
        if self._is_ending:
            return "end", ""
        if not self._started.is_set():
            return "start", "the engine"
        if self._loading is not None:
            return "load", f"weights {self._loading}"
        reason = self._waiting_for()
        if not self._engine_awake.is_set():
            return "asleep", reason
        return ("wait", reason) if reason else ("generate", f"weights {self._engine.version}")

    def _waiting_for(self) -> str:
        if not self._link.is_reachable:
            return "the hub"
        if not self._started.is_set():
            return "the engine to start"
        if not self._loaded.is_set():
            return "weights"
        if not self._awake.is_set():
            return "its turn: the learner trains"
        if self._activity.num_generating:
            return ""
        if self._groups:
            return "rewards"
        return "nothing: drained" if self._draining else "a lease"

    async def _start(self) -> None:
        self._mark()
        await self._engine.start()
        self._started.set()
        self._mark()

    async def _load(self) -> None:
        await self._started.wait()
        while True:
            snapshot = await self._receiver.take()
            is_loaded = False
            while not is_loaded:
                await self._engine_awake.wait()
                async with self._turn_lock:
                    # A sleeping engine has no memory for weights, and may have fallen asleep before the lock was ours.
                    if self._engine_awake.is_set():
                        await self._load_snapshot(snapshot)
                        is_loaded = True

    async def _load_snapshot(self, snapshot: WeightSnapshot) -> None:
        self._loading = snapshot.version
        self._mark()
        try:
            await self._engine.load_weights(snapshot)
        finally:
            self._loading = None
            self._receiver.release(snapshot)
        self._activity.count_load(snapshot.fetch_s, self._engine.metrics.load_s)
        log.info("loaded weights %s in %.2f s", snapshot.version, self._engine.metrics.load_s)
        self._loaded.set()
        self._mark()
        # The hub grants by what it knows of our version, also to a request that it is holding back.
        self._beat_now.set()

    async def _turn(self) -> None:
        await self._started.wait()
        while True:
            await self._phase_changed.wait()
            self._phase_changed.clear()
            async with self._turn_lock:
                if self._awake.is_set():
                    await self._engine.wake()
                    self._engine_awake.set()
                else:
                    self._engine_awake.clear()
                    await self._engine.sleep()
                self._mark()
            self._beat_now.set()

    async def _lease(self) -> None:
        await self._loaded.wait()
        while True:
            num_groups = await self._wait_for_room()
            version, wait_s = self._engine.version, self._config.lease_wait_s
            assert version is not None
            lease = Lease(name=self._name, max_groups=num_groups, version=version, wait_s=wait_s)
            work = await self._link.request(lease, wait_s)
            assert isinstance(work, Work)
            for item in work.items:
                self._begin(item)

    async def _wait_for_room(self) -> int:
        """Until there is something to lease for; how many groups."""
        wanted = self._config.concurrent_groups + self._config.lease_batch
        while True:
            self._room_changed.clear()
            # Groups that only wait for rewards leave the engine free, but there must be an end to them too.
            room = min(wanted - len(self._undrawn), 2 * wanted - len(self._groups))
            if room > 0 and self._awake.is_set() and not self._draining:
                return room
            await self._room_changed.wait()

    async def _leave(self, asked: asyncio.Event, stop: asyncio.Event) -> None:
        await asked.wait()
        self._draining = True
        log.info("asked to leave, with %d groups to finish", len(self._groups))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.leave_s):
                while self._groups:
                    await asyncio.wait(self._groups.values())
        stop.set()

    # --- one group ----------------------------------------------------------------------------------

    def _begin(self, item: WorkItem) -> None:
        if self._draining:
            self._hand_back(item)
            return
        self._undrawn.add(item.lease_id)
        task = asyncio.create_task(self._run_group(item))
        self._groups[item.lease_id] = task
        task.add_done_callback(lambda _: self._finish(item, task))

    def _finish(self, item: WorkItem, task: asyncio.Task[None]) -> None:
        del self._groups[item.lease_id]
        self._leave_engine(item)
        self._mark()
        if task.cancelled():
            # Here and not within the task, which a cancellation may reach before its first line.
            self._hand_back(item)
        elif (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)

    def _leave_engine(self, item: WorkItem) -> None:
        self._undrawn.discard(item.lease_id)
        self._room_changed.set()

    async def _run_group(self, item: WorkItem) -> None:
        try:
            group = await self._maker.make(item)
            answer: AnyMessage = Submit(lease_id=item.lease_id, group=group)
        except GroupFailedError as error:
            log.warning("group %s failed, attempt %d: %s", item.entry_id, item.attempt, error)
            self._activity.count_failed()
            answer = Return(lease_id=item.lease_id, failed=True, reason=str(error))
        try:
            await self._link.request(answer)
        except RefusedError as error:
            log.warning("group %s is void: %s", item.entry_id, error)
            self._activity.groups_void += 1
        else:
            if isinstance(answer, Submit):
                self._activity.count_submitted()

    def _hand_back(self, item: WorkItem) -> None:
        goodbye = asyncio.create_task(self._return_lease(item))
        self._goodbyes.add(goodbye)
        goodbye.add_done_callback(self._goodbyes.discard)

    async def _return_lease(self, item: WorkItem) -> None:
        # Once is enough: a lease that is not returned runs out.
        with contextlib.suppress(ProtocolError):
            await self._link.say(Return(lease_id=item.lease_id, failed=False, reason="drained"), _GOODBYE_S)

    # --- the end ------------------------------------------------------------------------------------

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._draining = self._is_ending = True
        self._mark()
        await cancel_all([*tasks, *self._groups.values()])
        await asyncio.gather(*self._goodbyes)
        # A hub that hears no goodbye notices the silence, later.
        with contextlib.suppress(ProtocolError):
            await self._link.say(Goodbye(name=self._name), _GOODBYE_S)
        await self._engine.close()
        await self._receiver.close()
        await self._link.close()


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all have ended; their errors are dropped.

    Once is not enough: libraries use `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes
    together with its result, and the task goes on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()
