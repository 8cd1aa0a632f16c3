"""Has the engine in hand: starts it, loads new weights between two decoding steps, and takes turns with the learner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actors.activity import Activity
from actors.engine import Engine, WeightSnapshot
from actors.weights import WeightReceiver
from protocol.version import PolicyVersion

log = logging.getLogger(__name__)


class EngineDriver:
    """Whether the engine is there, which weights it has, and whether it is its turn. `start`, `load` and `turn` are
    tasks of one event loop.

    Args:
        mark: called whenever what the engine does has changed.
        report: called when the hub should hear of it at once.
    """

    def __init__(
        self,
        engine: Engine,
        receiver: WeightReceiver,
        activity: Activity,
        mark: Callable[[], None],
        report: Callable[[], None],
    ) -> None:
        self._engine, self._receiver, self._activity = engine, receiver, activity
        self._mark, self._report = mark, report
        self.is_turn = True
        """Whether the devices are the actors': always, except in `alternate` while the learner trains."""
        self.loading: PolicyVersion | None = None
        """Weights that are being loaded."""
        self.started, self.loaded = asyncio.Event(), asyncio.Event()
        """Set once the engine is there, and once it has its first weights."""
        self._awake, self._turned = asyncio.Event(), asyncio.Event()
        self._awake.set()
        self._lock = asyncio.Lock()

    @property
    def is_awake(self) -> bool:
        """Whether the engine decodes, or would if it had anything to."""
        return self._awake.is_set()

    def give_turn(self, is_turn: bool) -> None:
        """The devices are the actors' or the learner's from now on."""
        self.is_turn = is_turn
        self._turned.set()

    async def start(self) -> None:
        """Start the engine. Raises EngineError."""
        self._mark()
        await self._engine.start()
        self.started.set()
        self._mark()

    async def load(self) -> None:
        """Load whatever weights come, until cancelled. Raises EngineDiedError."""
        await self.started.wait()
        while True:
            snapshot = await self._receiver.take()
            is_loaded = False
            while not is_loaded:
                await self._awake.wait()
                async with self._lock:
                    # A sleeping engine has no memory for weights, and may have fallen asleep before the lock was ours.
                    if self.is_awake:
                        await self._load_snapshot(snapshot)
                        is_loaded = True

    async def _load_snapshot(self, snapshot: WeightSnapshot) -> None:
        self.loading = snapshot.version
        self._mark()
        try:
            await self._engine.load_weights(snapshot)
        finally:
            self.loading = None
            self._receiver.release(snapshot)
        self._activity.count_load(snapshot.fetch_s, self._engine.metrics.load_s)
        log.info("loaded weights %s in %.2f s", snapshot.version, self._engine.metrics.load_s)
        self.loaded.set()
        self._mark()
        # The hub grants by what it knows of our version, also to a request that it is holding back.
        self._report()

    async def turn(self) -> None:
        """Let the engine sleep and wake as the turns change, until cancelled."""
        await self.started.wait()
        while True:
            await self._turned.wait()
            self._turned.clear()
            async with self._lock:
                if self.is_turn:
                    await self._engine.wake()
                    self._awake.set()
                else:
                    self._awake.clear()
                    await self._engine.sleep()
                self._mark()
            self._report()
