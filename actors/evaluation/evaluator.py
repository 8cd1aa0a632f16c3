"""The evaluator: a process of its own that measures weights while the run goes on, off the training path.

    loop        consumes                         produces                     waits for
    receive     manifests of weights that are    snapshots, fetched while     the publisher
                due, pushed by the hub           another is evaluated
    work        snapshots                        Evaluated                    weights that are due; engine; rewards
    beat        what it does                     heartbeats                   the clock

It holds no leases, so that nothing which it generates can be trained on, and it is no actor to anybody. It loads no
other weights before it is done with some. Those that were due meanwhile are left out for the newest, and told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from actors.engine import Engine, WeightSnapshot
from actors.evaluation.measure import Examiner
from actors.evaluation.spec import EvalSpec
from actors.evaluation.summary import summarise
from actors.hub_link import HubLink
from actors.priority import give_way
from actors.rollout import build_engine, cancel_all
from actors.settings import RolloutSettings
from actors.text import ChatText
from actors.weights import WeightReceiver
from protocol.core_loan import Lender
from protocol.errors import ProtocolError
from protocol.messages import AnyMessage, Evaluated, Goodbye, Heartbeat, WeightManifest
from protocol.version import PolicyVersion
from telemetry import catalogue
from telemetry.exporter import Exporter
from telemetry.timeline import Timeline

log = logging.getLogger(__name__)

_GOODBYE_S = 2.0
_NICENESS = 10
"""Where it shares the actors' cores, they come first: at a tenth of their weight it takes what they leave over. Not
while it starts, which beside busy actors would take minutes."""


async def run_evaluator(settings: RolloutSettings, stop: asyncio.Event) -> None:
    """Be the evaluator until `stop` is set.

    Raises:
        EngineError: the engine did not start, or died.
        TaskError: the evaluation prompts cannot be made.
        RefusedError: the hub does not want it.
        OSError: there is no room for the weights.
    """
    from tasks import build_task
    from tasks.runner import RewardRunner

    section = settings.task.eval
    assert section is not None, "a run without [task.eval] has no evaluator"
    spec = EvalSpec.of(section, settings.actors.temperature)
    text = ChatText(settings.model_path, settings.model.system_prompt)
    task = build_task(settings.task, split="eval")
    engine = build_engine(settings, text.stop_token_ids)
    runner = RewardRunner(settings.task, settings.actors.reward_workers, settings.actors.reward_timeout_s, split="eval")
    exporter = Exporter(settings.name, settings.telemetry.facing(settings.hub_address), settings.run_dir)
    timeline = Timeline(settings.run_dir, settings.name, is_enabled=settings.telemetry.timeline)
    try:
        examiner = Examiner(spec, settings, task, text, engine, runner)
        await Evaluator(settings, spec, examiner, engine, exporter, timeline).run(stop)
    finally:
        await runner.close()
        exporter.close()
        timeline.close()


class Evaluator:
    """`run` is called once.

    Args:
        examiner: asks `engine` the evaluation prompts, as `spec` says.
        timeline: is told what goes on; the caller closes it.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        spec: EvalSpec,
        examiner: Examiner,
        engine: Engine,
        exporter: Exporter,
        timeline: Timeline,
    ) -> None:
        self._name, self._beat_s = settings.name, settings.actors.heartbeat_s
        self._spec, self._examiner, self._engine = spec, examiner, engine
        self._shares_cores = settings.task.eval is not None and settings.task.eval.threads is None
        self._exporter, self._timeline = exporter, timeline
        self._receiver = WeightReceiver(settings.weights, settings.label, on_gone=self._note_gone)
        self._link = HubLink(
            settings.hub_address,
            settings.name,
            self._on_push,
            metrics_address=exporter.address or "",
            role="evaluator",
        )
        self._newest: PolicyVersion | None = None
        self._offered: list[PolicyVersion] = []
        self._left_out: asyncio.Queue[Evaluated] = asyncio.Queue()
        self._waiting_for = ""
        self._lender = Lender(settings.loan)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Raises what ended it otherwise."""
        loops = [self._greet_and_beat(), self._receiver.run(), self._work(), self._tell_left_out()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        stopper = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({stopper, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await self._end([stopper, *tasks])

    def _on_push(self, message: AnyMessage) -> None:
        # The hub says it again to whoever says hello again.
        if isinstance(message, WeightManifest) and (self._newest is None or message.version > self._newest):
            self._newest = message.version
            self._offered.append(message.version)
            self._receiver.offer(message)

    # --- loops --------------------------------------------------------------------------------------

    async def _greet_and_beat(self) -> None:
        await self._link.greet()
        while True:
            await self._link.request(
                Heartbeat(name=self._name, version=self._engine.version, waiting_for=self._waiting_for)
            )
            await asyncio.sleep(self._beat_s)

    async def _work(self) -> None:
        self._enter("start", "the engine", "the engine to start")
        await self._engine.start()
        if self._shares_cores:
            give_way(_NICENESS)
        while True:
            self._enter("wait", "weights that are due", "weights that are due")
            snapshot = await self._receiver.take()
            self._leave_out_before(snapshot.version)
            await self._link.request(await self._evaluate(snapshot))

    async def _evaluate(self, snapshot: WeightSnapshot) -> Evaluated:
        version = snapshot.version
        self._enter("load", f"weights {version}")
        try:
            await self._engine.load_weights(snapshot)
        finally:
            self._receiver.release(snapshot)
        self._enter("generate", f"the evaluation of {version}")
        begin_s = time.monotonic()
        result = summarise(await self._examiner.ask_all(), self._spec)
        result["seconds"] = round(time.monotonic() - begin_s, 3)
        log.info("evaluated weights %s in %.1f s: %s", version, result["seconds"], result["pass_at"])
        self._export(version, result)
        return Evaluated(version=version, result=result)

    async def _tell_left_out(self) -> None:
        while True:
            message = await self._left_out.get()
            log.warning("weights %s are not evaluated: %s", message.version, message.reason)
            self._exporter.inc(catalogue.EVAL_LEFT_OUT)
            await self._link.request(message)

    # --- what is left out ---------------------------------------------------------------------------

    def _leave_out_before(self, version: PolicyVersion) -> None:
        """Weights older than those taken will not be evaluated any more."""
        for older in [one for one in self._offered if one < version]:
            self._drop(older, f"step {version.step} was due before the evaluator was free")
        self._offered = [one for one in self._offered if one > version]

    def _note_gone(self, version: PolicyVersion) -> None:
        self._drop(version, "its weights are not served any more")

    def _drop(self, version: PolicyVersion, reason: str) -> None:
        if version in self._offered:
            self._offered.remove(version)
            self._left_out.put_nowait(Evaluated(version=version, result=None, reason=reason))

    # --- telemetry, the end -------------------------------------------------------------------------

    def _enter(self, what: str, of: str, waiting_for: str = "") -> None:
        self._timeline.enter(what, of)
        self._lender.note(works=what != "wait")
        self._waiting_for = waiting_for

    def _export(self, version: PolicyVersion, result: dict[str, Any]) -> None:
        exporter = self._exporter
        exporter.set(catalogue.EVAL_VERSION, version.step)
        exporter.set(catalogue.EVAL_REWARD, result["mean_reward"])
        exporter.set(catalogue.EVAL_TRUNCATED, result["truncated_fraction"])
        exporter.observe(catalogue.EVAL_DURATION, result["seconds"])
        exporter.inc(catalogue.EVAL_UNJUDGED, result["unjudged"])
        for k, estimate in result["pass_at"].items():
            exporter.set(catalogue.EVAL_PASS, estimate["mean"], k=k)
            exporter.set(catalogue.EVAL_PASS_LOW, estimate["low"], k=k)
            exporter.set(catalogue.EVAL_PASS_HIGH, estimate["high"], k=k)
        if result["greedy"] is not None:
            exporter.set(catalogue.EVAL_GREEDY, result["greedy"]["mean"])

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._enter("end", "")
        await cancel_all(tasks)
        # A hub that hears no goodbye notices the silence, later.
        with contextlib.suppress(ProtocolError):
            await self._link.say(Goodbye(name=self._name), _GOODBYE_S)
        await self._engine.close()
        self._lender.close()
        await self._receiver.close()
        await self._link.close()
