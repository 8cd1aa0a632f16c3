"""The client for threads, over real sockets."""

from __future__ import annotations

import asyncio
import threading

import pytest

from protocol.blocking import BlockingClient
from protocol.endpoint import Server
from protocol.errors import AddressError, RefusedError
from protocol.messages import Acknowledge, AnyMessage, Phase, Refuse, Snapshot
from protocol.status import Inspect
from tests.protocol.endpoint_kit import HELLO, run, serving


def test_blocking_client_asks_gets_pushes_and_raises_like_the_other() -> None:
    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        if message == Snapshot():
            raise RefusedError("no", "not now")
        await server_of[0].push(peer, Phase(generating=False))
        return Refuse(code="a", reason="b") if message == Inspect() else Acknowledge()

    server_of: list[Server] = []

    async def scenario() -> None:
        async with serving(handler) as server:
            server_of.append(server)
            await asyncio.to_thread(use, server.address)

    def use(address: str) -> None:
        pushed: list[AnyMessage] = []
        client = BlockingClient(address, pushed.append)
        assert client.request(HELLO) == Acknowledge()
        assert pushed == [Phase(generating=False)]
        with pytest.raises(RefusedError, match="no: not now"):
            client.request(Snapshot())
        with pytest.raises(RefusedError, match="a: b"):
            client.submit(Inspect()).result()
        client.close()

    run(scenario)


def test_blocking_client_that_closes_cancels_what_waits() -> None:
    arrived = threading.Event()

    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        arrived.set()
        await asyncio.Event().wait()
        return Acknowledge()

    async def scenario() -> None:
        async with serving(handler) as server:
            await asyncio.to_thread(use, server.address)

    def use(address: str) -> None:
        client = BlockingClient(address)
        future = client.submit(HELLO)
        assert arrived.wait(10)
        client.close()
        assert future.cancelled()

    run(scenario)


def test_blocking_client_with_a_malformed_address_leaves_no_thread() -> None:
    with pytest.raises(AddressError):
        BlockingClient("nonsense")
    assert [thread for thread in threading.enumerate() if thread.name == "rapid-link"] == []
