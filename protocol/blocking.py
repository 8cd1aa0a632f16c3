"""A Client for code without an event loop: it runs one in a thread of its own, which owns the socket."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from protocol.endpoint import Client, PushHandler
from protocol.errors import AddressError
from protocol.messages import AnyMessage

T = TypeVar("T")


class BlockingClient:
    """`request` blocks, `submit` returns a future; both may be called from any thread.

    Args:
        address: where the server listens.
        on_push: called in the client's own thread for each push.

    Raises:
        AddressError: the address is malformed.
    """

    def __init__(self, address: str, on_push: PushHandler | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rapid-link", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(self._connect(address, on_push)).result()
        except AddressError:
            self._end_thread()
            raise

    async def _connect(self, address: str, on_push: PushHandler | None) -> Client:
        return Client(address, on_push)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def submit(self, message: AnyMessage, timeout_s: float = 30.0) -> concurrent.futures.Future[AnyMessage]:
        """Send a request; the future holds its answer, or the error that `Client.request` raises."""
        return self._run(self._client.request(message, timeout_s))

    def request(self, message: AnyMessage, timeout_s: float = 30.0) -> AnyMessage:
        """Send a request and wait for its answer; errors as `Client.request`."""
        return self.submit(message, timeout_s).result()

    def close(self) -> None:
        """Close the socket and end the thread; requests under way are cancelled."""
        self._run(self._close()).result()
        self._end_thread()

    async def _close(self) -> None:
        await self._client.close()
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
