"""A hub over real sockets and clients that talk to it. Time is a number that the tests set."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from buffer.config import BufferConfig
from buffer.service import Hub
from buffer.simulation import scripted_group
from protocol.config import ScheduleConfig
from protocol.endpoint import Client
from protocol.messages import AnyMessage, Batch, Hello, Lease, Pull, Submit, Work, WorkItem
from protocol.status import Inspect, Status
from protocol.version import PolicyVersion

B = 2
PROMPTS = 50


def v(step: int, incarnation: int = 1) -> PolicyVersion:
    return PolicyVersion(incarnation, step)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_hub(*, clock: Clock | None = None, schedule: ScheduleConfig | None = None, **options: Any) -> Hub:
    config = BufferConfig(shuffle=False, lease_s=60, client_timeout_s=20)
    plan = schedule or ScheduleConfig(max_staleness=0, steps=50)
    return Hub(config, plan, B, PROMPTS, 0, "tcp://127.0.0.1:*", clock=clock or Clock(), **options)


@contextlib.asynccontextmanager
async def serving(hub: Hub) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(hub.serve(stop))
    try:
        yield stop
    finally:
        stop.set()
        await task


class Peer:
    """A client that keeps what is pushed to it."""

    def __init__(self, hub: Hub, name: str, role: str, pid: int = 1) -> None:
        self.name = name
        self.pushed: asyncio.Queue[AnyMessage] = asyncio.Queue()
        self._client = Client(hub.address, self.pushed.put_nowait)
        self._hello = Hello(role=role, name=name, pid=pid)  # type: ignore[arg-type]

    async def __aenter__(self) -> Peer:
        await self.ask(self._hello)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, message: AnyMessage) -> Any:
        return await self._client.request(message, 20)

    async def lease(self, count: int, version: PolicyVersion, wait_s: float = 0.0) -> list[WorkItem]:
        work = await self.ask(Lease(name=self.name, max_groups=count, version=version, wait_s=wait_s))
        assert isinstance(work, Work)
        return work.items

    async def submit(self, items: Sequence[WorkItem], version: PolicyVersion) -> None:
        for item in items:
            await self.ask(Submit(lease_id=item.lease_id, group=scripted_group(item.entry_id, [version], signal=True)))

    async def pull(self, version: PolicyVersion, wait_s: float = 0.0) -> Batch:
        batch = await self.ask(Pull(version=version, wait_s=wait_s))
        assert isinstance(batch, Batch)
        return batch

    async def pushes(self) -> list[AnyMessage]:
        """All that was pushed to it. An answer to itself comes after it; one to another client may come before."""
        await self.status()
        return [self.pushed.get_nowait() for _ in range(self.pushed.qsize())]

    async def status(self) -> Status:
        status = await self.ask(Inspect())
        assert isinstance(status, Status)
        return status


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(limited())
