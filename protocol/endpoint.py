"""The two asyncio ends of a ZeroMQ connection: Server (ROUTER) and Client (DEALER).

    request   [correlation: 8 bytes, not zero] [frames of the message ...]
    answer    [the same correlation]           [frames of the message ...]
    push      [correlation zero]               [frames of the message ...]     server to client only

Each end owns its socket and uses it from one event loop alone; ZeroMQ sockets are not thread-safe. For
threads without a loop there is `protocol.blocking.BlockingClient`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Awaitable, Callable

import zmq
import zmq.asyncio

from protocol.codec import Frame, decode, encode
from protocol.errors import AddressError, CodecError, PeerTimeoutError, RefusedError
from protocol.messages import AnyMessage, Refuse

log = logging.getLogger(__name__)

PUSH = 0
_CORRELATION = struct.Struct("<Q")
_LINGER_MS = 500
_HIGH_WATER_MARK = 10_000

Handler = Callable[[bytes, AnyMessage], Awaitable[AnyMessage]]
PushHandler = Callable[[AnyMessage], None]


class Server:
    """Answers requests and pushes to clients that it has heard of.

    Args:
        address: "tcp://127.0.0.1:*" for any free port, "tcp://0.0.0.0:5555", "ipc:///path".
        handler: called with the peer's identity and its request, one task for each request; what it
            returns is the answer. A RefusedError that it raises travels as Refuse.
    """

    def __init__(self, address: str, handler: Handler) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        # A push to a client that is gone must fail instead of vanishing: the hub then knows.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.set_hwm(_HIGH_WATER_MARK)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close(0)
            self._context.term()
            raise AddressError(
                f"cannot listen on {address}: {error.strerror.lower()}. Choose a free port, or * for any"
            ) from error

    @property
    def address(self) -> str:
        """The address bound, with the port that was chosen for `*`."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    async def serve(self) -> None:
        """Receive and answer until cancelled."""
        try:
            while True:
                peer, correlation, *frames = await self._socket.recv_multipart(copy=False)
                task = asyncio.create_task(
                    self._answer(peer.bytes, correlation.bytes, [frame.buffer for frame in frames])
                )
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    async def _answer(self, peer: bytes, correlation: bytes, frames: list[memoryview]) -> None:
        try:
            request = decode(frames)
        except CodecError as error:
            log.warning("refused a damaged message of peer %s: %s", peer.hex(), error)
            await self._send(peer, correlation, encode(Refuse(code="bad_message", reason=str(error))))
            return
        try:
            answer = encode(await self._handler(peer, request))
        except RefusedError as error:
            answer = encode(Refuse(code=error.code, reason=error.reason))
        except Exception as error:  # A mistake in one request's handling must not end the serving of the others.
            log.exception("the handler of a request failed")
            answer = encode(Refuse(code="internal", reason=f"{type(error).__name__}: {error}"))
        await self._send(peer, correlation, answer)

    async def push(self, peer: bytes, message: AnyMessage) -> bool:
        """Send without being asked. False when the peer is not connected any more."""
        return await self._send(peer, _CORRELATION.pack(PUSH), encode(message))

    async def _send(self, peer: bytes, correlation: bytes, frames: list[Frame]) -> bool:
        try:
            await self._socket.send_multipart([peer, correlation, *frames], copy=False)
        except zmq.ZMQError as error:
            log.info("peer %s is unreachable: %s", peer.hex(), error.strerror)
            return False
        return True

    async def finish(self) -> None:
        """Wait until every request received so far is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close(_LINGER_MS)
        self._context.term()


class Client:
    """Sends requests, each answered once, and receives pushes.

    Args:
        address: where the server listens.
        on_push: called in the event loop for each push; must not block.
    """

    def __init__(self, address: str, on_push: PushHandler | None = None) -> None:
        self._on_push = on_push
        self._waiting: dict[int, asyncio.Future[AnyMessage]] = {}
        self._next_correlation = 1
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.set_hwm(_HIGH_WATER_MARK)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._socket.close(0)
            self._context.term()
            raise AddressError(
                f"cannot connect to {address!r}: {error.strerror.lower()}. Expected tcp://host:port"
            ) from error
        self._receiver = asyncio.get_running_loop().create_task(self._receive())

    async def request(self, message: AnyMessage, timeout_s: float = 30.0) -> AnyMessage:
        """Send a request and return its answer.

        Raises:
            RefusedError: the server refused.
            CodecError: the message cannot travel, or its answer came damaged.
            PeerTimeoutError: no answer in `timeout_s`; the request may or may not have been executed.
        """
        correlation = self._next_correlation
        self._next_correlation += 1
        future: asyncio.Future[AnyMessage] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = future
        try:
            # Not `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes together with the answer.
            async with asyncio.timeout(timeout_s):
                await self._socket.send_multipart([_CORRELATION.pack(correlation), *encode(message)], copy=False)
                answer = await future
        except TimeoutError:
            raise PeerTimeoutError(
                f"no answer to {type(message).__name__} within {timeout_s:g} s; is the process there still alive?"
            ) from None
        finally:
            self._waiting.pop(correlation, None)
        if isinstance(answer, Refuse):
            raise RefusedError(answer.code, answer.reason)
        return answer

    async def _receive(self) -> None:
        while True:
            correlation, *frames = await self._socket.recv_multipart(copy=False)
            if len(correlation) != _CORRELATION.size:
                log.warning("dropped a message whose correlation has %d bytes", len(correlation))
                continue
            (number,) = _CORRELATION.unpack(correlation.bytes)
            future = self._waiting.get(number)
            try:
                message = decode([frame.buffer for frame in frames])
            except CodecError as error:
                log.warning("a damaged message came: %s", error)
                if future is not None and not future.done():
                    future.set_exception(error)
                continue
            if number == PUSH:
                self._take_push(message)
            elif future is not None and not future.done():
                future.set_result(message)

    def _take_push(self, message: AnyMessage) -> None:
        try:
            if self._on_push is not None:
                self._on_push(message)
        except Exception:  # An error of the user of this client must not end the receiving of answers.
            log.exception("on_push failed for %s", type(message).__name__)

    async def close(self) -> None:
        """Close the socket; requests under way are cancelled. Idempotent."""
        self._receiver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._receiver
        for future in self._waiting.values():
            future.cancel()
        self._socket.close(_LINGER_MS)
        self._context.term()
