"""Server and Client over real sockets. Order is kept by events and gates, never by sleeping."""

from __future__ import annotations

import asyncio
import logging

import pytest
import zmq
import zmq.asyncio

from protocol.codec import encode
from protocol.endpoint import Client, Server
from protocol.errors import AddressError, CodecError, PeerTimeoutError, RefusedError
from protocol.messages import Acknowledge, AnyMessage, Drain, Hello, Phase, Settle
from protocol.status import Inspect
from protocol.version import PolicyVersion
from tests.protocol.endpoint_kit import HELLO, acknowledge, connected, run, serving


def test_request_reaches_the_handler_and_its_answer_the_client() -> None:
    seen: list[AnyMessage] = []

    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        seen.append(message)
        return Drain(reason="answer")

    async def scenario() -> None:
        async with serving(handler) as server, connected(server) as client:
            assert await client.request(HELLO) == Drain(reason="answer")
            assert seen == [HELLO]

    run(scenario)


def test_answers_find_their_requests_in_whatever_order_they_come() -> None:
    gate = asyncio.Event()

    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        if message == HELLO:
            await gate.wait()
        else:
            gate.set()
        return Drain(reason=type(message).__name__)

    async def scenario() -> None:
        async with serving(handler) as server, connected(server) as client:
            first = asyncio.create_task(client.request(HELLO))
            assert await client.request(Inspect()) == Drain(reason="Inspect")
            assert await first == Drain(reason="Hello")

    run(scenario)


def test_refusal_travels_with_code_and_reason() -> None:
    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        raise RefusedError("unknown_lease", "it has expired")

    async def scenario() -> None:
        async with serving(handler) as server, connected(server) as client:
            with pytest.raises(RefusedError, match="unknown_lease: it has expired") as caught:
                await client.request(HELLO)
            assert caught.value.code == "unknown_lease"

    run(scenario)


def test_handler_that_crashes_costs_one_answer_and_not_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        if message == HELLO:
            raise KeyError("oops")
        return Acknowledge()

    async def scenario() -> None:
        async with serving(handler) as server, connected(server) as client:
            with pytest.raises(RefusedError, match="internal: KeyError: 'oops'"):
                await client.request(HELLO)
            assert await client.request(Inspect()) == Acknowledge()

    with caplog.at_level(logging.CRITICAL):
        run(scenario)


def test_answer_that_cannot_travel_is_refused_instead_of_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        return Drain(reason="\ud800")

    async def scenario() -> None:
        async with serving(handler) as server, connected(server) as client:
            with pytest.raises(RefusedError, match=r"internal: .*does not travel"):
                await client.request(HELLO)

    with caplog.at_level(logging.CRITICAL):
        run(scenario)


def test_silent_peer_gives_a_timeout_and_a_late_answer_is_ignored() -> None:
    gate = asyncio.Event()

    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        if message == HELLO:
            await gate.wait()
        return Acknowledge()

    async def scenario() -> None:
        async with serving(handler) as server, connected(server) as client:
            with pytest.raises(PeerTimeoutError, match=r"no answer to Hello within 0\.05 s"):
                await client.request(HELLO, timeout_s=0.05)
            gate.set()
            assert await client.request(Inspect()) == Acknowledge()

    run(scenario)


def test_request_sent_before_the_server_listens_is_answered_when_it_does() -> None:
    async def scenario() -> None:
        async with serving() as server:
            address = server.address
        client = Client(address)
        request = asyncio.create_task(client.request(HELLO))
        late = Server(address, acknowledge)
        loop = asyncio.create_task(late.serve())
        assert await request == Acknowledge()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await client.close()
        late.close()

    run(scenario)


def test_push_reaches_the_client_without_a_request() -> None:
    peers: list[bytes] = []

    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        peers.append(peer)
        return Acknowledge()

    async def scenario() -> None:
        pushed: asyncio.Queue[AnyMessage] = asyncio.Queue()
        async with serving(handler) as server, connected(server, pushed.put_nowait) as client:
            await client.request(HELLO)
            assert await server.push(peers[0], Phase(generating=True))
            assert await server.push(peers[0], Drain(reason="end"))
            assert [await pushed.get(), await pushed.get()] == [Phase(generating=True), Drain(reason="end")]

    run(scenario)


def test_push_handler_that_fails_does_not_stop_the_answers(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        await server_of[0].push(peer, Phase(generating=True))
        return Acknowledge()

    def fail(message: AnyMessage) -> None:
        raise KeyError("oops")

    server_of: list[Server] = []

    async def scenario() -> None:
        async with serving(handler) as server, connected(server, fail) as client:
            server_of.append(server)
            assert await client.request(HELLO) == Acknowledge()
            assert await client.request(HELLO) == Acknowledge()

    with caplog.at_level(logging.CRITICAL):
        run(scenario)


def test_push_to_nobody_says_so() -> None:
    async def scenario() -> None:
        async with serving() as server:
            assert not await server.push(b"nobody", Phase(generating=True))

    run(scenario)


def test_taken_port_is_one_clear_error() -> None:
    async def scenario() -> None:
        async with serving() as server:
            with pytest.raises(AddressError, match=r"cannot listen on tcp.*in use.*Choose a free port"):
                Server(server.address, acknowledge)

    run(scenario)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "nonsense", "tcp://127.0.0.1:port"])
def test_malformed_address_is_one_clear_error(address: str) -> None:
    async def scenario() -> None:
        with pytest.raises(AddressError):
            Server(address, acknowledge)
        with pytest.raises(AddressError):
            Client(address)

    run(scenario)


def test_damaged_request_is_refused_and_the_server_goes_on() -> None:
    async def scenario() -> None:
        context = zmq.asyncio.Context()
        raw = context.socket(zmq.DEALER)
        async with serving() as server, connected(server) as client:
            raw.connect(server.address)
            for frames in ([b"12345678", b"rubbish"], [b"12345678"], [b""], [b"x"] * 50):
                await raw.send_multipart(frames)
                _, *answer = await raw.recv_multipart()
                assert b"bad_message" in answer[0]
            assert await client.request(HELLO) == Acknowledge()
        raw.close(0)
        context.term()

    run(scenario)


def test_damaged_answer_fails_its_request_and_nothing_else() -> None:
    async def scenario() -> None:
        context = zmq.asyncio.Context()
        router = context.socket(zmq.ROUTER)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        client = Client(f"tcp://127.0.0.1:{port}")
        request = asyncio.create_task(client.request(HELLO))
        peer, correlation, *_ = await router.recv_multipart()
        await router.send_multipart([peer, b"odd", b"rubbish"])
        await router.send_multipart([peer, b"\x00" * 8, b"a damaged push"])
        await router.send_multipart([peer, correlation, b"rubbish"])
        with pytest.raises(CodecError):
            await request
        request = asyncio.create_task(client.request(HELLO))
        peer, correlation, *_ = await router.recv_multipart()
        await router.send_multipart([peer, correlation, *encode(Acknowledge())])
        assert await request == Acknowledge()
        await client.close()
        router.close(0)
        context.term()

    run(scenario)


def test_message_that_cannot_travel_fails_at_the_sender() -> None:
    async def scenario() -> None:
        async with serving() as server, connected(server) as client:
            with pytest.raises(CodecError):
                await client.request(Hello(role="observer", name="\ud800"))

    run(scenario)


def test_finish_waits_for_the_answers_under_way() -> None:
    events: list[str] = []
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        arrived.set()
        await gate.wait()
        events.append("answered")
        return Acknowledge()

    async def scenario() -> None:
        async with serving(handler) as server, connected(server) as client:
            request = asyncio.create_task(client.request(HELLO))
            await arrived.wait()
            asyncio.get_running_loop().call_soon(gate.set)
            await server.finish()
            events.append("finished")
            await request
            assert events == ["answered", "finished"]

    run(scenario)


def test_close_cancels_what_is_under_way_and_may_be_repeated() -> None:
    async def scenario() -> None:
        async def never(peer: bytes, message: AnyMessage) -> AnyMessage:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async with serving(never) as server:
            client = Client(server.address)
            request = asyncio.create_task(client.request(Inspect()))
            await asyncio.sleep(0)
            await client.close()
            assert isinstance((await asyncio.gather(request, return_exceptions=True))[0], asyncio.CancelledError)
            await client.close()
            server.close()
            server.close()

    run(scenario)


def test_thousand_requests_at_once_are_all_answered() -> None:
    async def handler(peer: bytes, message: AnyMessage) -> AnyMessage:
        assert isinstance(message, Settle)
        return Drain(reason=str(message.version.step))

    async def scenario() -> None:
        async with serving(handler) as server, connected(server) as client:
            requests = [client.request(Settle(version=PolicyVersion(1, step))) for step in range(1000)]
            answers = await asyncio.gather(*requests)
            assert [answer.reason for answer in answers if isinstance(answer, Drain)] == [str(x) for x in range(1000)]

    run(scenario)
