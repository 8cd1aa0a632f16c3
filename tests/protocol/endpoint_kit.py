"""A server and clients over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from protocol.endpoint import Client, Handler, Server
from protocol.messages import Acknowledge, AnyMessage, Hello

ANY_PORT = "tcp://127.0.0.1:*"


HELLO = Hello(role="observer", name="test")


async def acknowledge(peer: bytes, message: AnyMessage) -> AnyMessage:
    return Acknowledge()


@contextlib.asynccontextmanager
async def serving(handler: Handler = acknowledge) -> AsyncIterator[Server]:
    server = Server(ANY_PORT, handler)
    loop = asyncio.create_task(server.serve())
    try:
        yield server
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        server.close()


@contextlib.asynccontextmanager
async def connected(server: Server, on_push: Callable[[AnyMessage], None] | None = None) -> AsyncIterator[Client]:
    client = Client(server.address, on_push)
    try:
        yield client
    finally:
        await client.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(limited())
