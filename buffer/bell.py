"""Waiting until anything changes: what long polls do between two questions to the machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


class Bell:
    """Rings at every change. One asks the machine, and if it says "not yet", waits for the ring after `listen`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ring = asyncio.Event()

    def ring(self) -> None:
        """Something has changed: wake all who wait."""
        self._ring.set()
        self._ring = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The next ring. To be taken before the machine is asked, so that no change falls in between."""
        return self._ring

    async def wait(self, ring: asyncio.Event, deadline: float) -> bool:
        """Wait for this ring, or until the deadline on the clock; False when the time was over before."""
        left = deadline - self._clock()
        if left <= 0:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await ring.wait()
        return True
