"""The connection of an actor, or of the evaluator, to the hub: it outlives a hub that is away, and greets it again."""

from __future__ import annotations

import logging
import os
import socket
from typing import Literal

from protocol.endpoint import Client, PushHandler
from protocol.errors import PeerTimeoutError, RefusedError
from protocol.messages import AnyMessage, Hello

log = logging.getLogger(__name__)

_ANSWER_S = 10.0
_UNKNOWN_CLIENT = "unknown_client"


class HubLink:
    """Requests that are repeated until they are answered. Belongs to one event loop.

    Args:
        name: of the actor.
        on_push: called for each push of the hub; must not block.
        answer_s: seconds after which a request that was not answered is repeated.
        metrics_address: where this actor serves its metrics; empty if it does not.
        role: as what it is known to the hub.
    """

    def __init__(
        self,
        address: str,
        name: str,
        on_push: PushHandler,
        answer_s: float = _ANSWER_S,
        metrics_address: str = "",
        role: Literal["actor", "evaluator"] = "actor",
    ) -> None:
        self._address, self._name, self._answer_s = address, name, answer_s
        self._metrics_address, self._role = metrics_address, role
        self._client = Client(address, on_push)
        self._must_greet = False
        self.is_reachable = True
        """Whether the hub answered the last time that it was asked."""

    async def greet(self) -> None:
        """Say hello until the hub answers. Raises RefusedError."""
        self._must_greet = True
        await self._ask_until_answered(self._hello(), 0.0)
        self._must_greet = False

    async def request(self, message: AnyMessage, wait_s: float = 0.0) -> AnyMessage:
        """The hub's answer, however long the hub is away.

        Args:
            wait_s: how long the hub was asked to hold its answer back.

        Raises:
            RefusedError: the hub said no.
        """
        while True:
            if self._must_greet:
                await self.greet()
            try:
                return await self._ask_until_answered(message, wait_s)
            except RefusedError as error:
                if error.code != _UNKNOWN_CLIENT:
                    raise
                self._must_greet = True

    async def say(self, message: AnyMessage, timeout_s: float) -> None:
        """Send a request once, such as on the way out. Raises ProtocolError."""
        await self._client.request(message, timeout_s)

    async def close(self) -> None:
        """Close the socket. Idempotent."""
        await self._client.close()

    async def _ask_until_answered(self, message: AnyMessage, wait_s: float) -> AnyMessage:
        while True:
            try:
                answer = await self._client.request(message, wait_s + self._answer_s)
            except PeerTimeoutError as error:
                self._note_silence(error)
            except RefusedError:
                self._note_answer()
                raise
            else:
                self._note_answer()
                return answer

    def _note_silence(self, error: PeerTimeoutError) -> None:
        if self.is_reachable:
            log.warning("hub %s: %s Results are kept and sent again until it answers.", self._address, error)
        self.is_reachable = False

    def _note_answer(self) -> None:
        if not self.is_reachable:
            log.info("hub %s answers again", self._address)
            # A hub that was started anew knows nobody.
            self._must_greet = True
        self.is_reachable = True

    def _hello(self) -> Hello:
        return Hello(
            role=self._role,
            name=self._name,
            pid=os.getpid(),
            host=socket.gethostname(),
            metrics_address=self._metrics_address,
        )
