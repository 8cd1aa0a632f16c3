"""A run without engines: a real hub behind a real socket, an actor and a learner that act when they are told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from buffer.config import BufferConfig
from buffer.service import Hub
from buffer.simulation import scripted_group, scripted_manifest
from protocol.blocking import BlockingClient
from protocol.config import ScheduleConfig
from protocol.messages import Batch, Commit, Heartbeat, Hello, Lease, Pull, Records, Settle, Submit, Work
from protocol.version import PolicyVersion
from telemetry.catalogue import ACTOR_BUSY, ACTOR_TOKEN_RATE
from telemetry.run_dir import RunDirectory, locked
from tests.telemetry.fakes import make_record

B = 4
STEPS = 20
CONFIG = {
    "schedule": {"mode": "async", "steps": STEPS, "max_staleness": 2},
    "model": {"path": "tiny"},
    "telemetry": {"stall_s": 120.0},
}


class ServedRun:
    """Begin it with `serve_run`."""

    def __init__(self, hub: Hub) -> None:
        self.address = hub.address
        self.hub = hub
        self.step = 0
        self._learner, self._actor = BlockingClient(hub.address), BlockingClient(hub.address)
        self._learner.request(Hello(role="learner", name="learner", pid=1, host="box-a"))
        self._learner.request(scripted_manifest(PolicyVersion(1, 0)))
        self.join("actor-0")

    def join(self, name: str) -> None:
        """Another actor comes."""
        self._actor.request(Hello(role="actor", name=name, pid=2, host="box-b"))
        self.beat(name)

    def beat(self, name: str, waiting_for: str = "") -> None:
        """An actor says what it does."""
        metrics = {ACTOR_TOKEN_RATE.name: 312.0, ACTOR_BUSY.name: 0.75}
        version = PolicyVersion(1, self.step)
        self._actor.request(Heartbeat(name=name, version=version, waiting_for=waiting_for, metrics=metrics))

    def train(self, num_steps: int = 1, **changes: Any) -> None:
        """Whole steps: lease, submit, pull, commit, publish, record."""
        for _ in range(num_steps):
            version = PolicyVersion(1, self.step)
            work = self._actor.request(Lease(name="actor-0", max_groups=B, version=version))
            assert isinstance(work, Work)
            for item in work.items:
                group = scripted_group(item.entry_id, [version], signal=True)
                self._actor.request(Submit(lease_id=item.lease_id, group=group))
            batch = self._learner.request(Pull(version=version))
            assert isinstance(batch, Batch)
            self.step += 1
            after = PolicyVersion(1, self.step)
            self._learner.request(Commit(batch_id=batch.batch_id, version=after))
            self._learner.request(scripted_manifest(after))
            by_lag = {"by_lag": {"0": {"tokens": 30}, "1": {"tokens": 10}}}
            record = make_record(self.step, reward_mean=self.step / STEPS, diagnostics=by_lag, **changes)
            self._learner.request(Records(records=[record]))

    def settle(self) -> None:
        """A checkpoint of the last step is there."""
        self._learner.request(Settle(version=PolicyVersion(1, self.step)))

    def close(self) -> None:
        self._learner.close()
        self._actor.close()


@contextlib.contextmanager
def serve_run(folder: Path | None = None) -> Iterator[ServedRun]:
    """A hub with one actor and a learner at version 1.0; with a folder, the launcher's side of it as well."""
    ready, stop = threading.Event(), asyncio.Event()
    loop, hubs = asyncio.new_event_loop(), list[Hub]()

    async def serve() -> None:
        plan = ScheduleConfig(max_staleness=2, steps=STEPS)
        # However late something is, the hub does not give up an actor, which is silent unless told otherwise.
        config = BufferConfig(client_timeout_s=600)
        hub = Hub(config, plan, B, 1000, 0, "tcp://127.0.0.1:*", run_dir=folder, model="tiny")
        hubs.append(hub)
        ready.set()
        await hub.serve(stop)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    with contextlib.ExitStack() as stack:
        if folder is not None:
            run_dir = RunDirectory.create(folder)
            run_dir.write_config(CONFIG)
            stack.enter_context(locked(folder))
        thread.start()
        assert ready.wait(10)
        served = ServedRun(hubs[0])
        if folder is not None:
            stack.enter_context(run_dir.hub_announced(served.address))
        try:
            yield served
        finally:
            served.close()
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()
