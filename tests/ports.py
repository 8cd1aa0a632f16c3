"""Ports for what tests start."""

from __future__ import annotations

import contextlib
import random
import socket

# Below those that Linux gives to connections and to whoever asks for any port, and above those of Ray's workers, so
# that nobody comes upon one between this look at it and its use.
_BLOCKS = range(20002, 32000, 5)
# In an order that no seed makes the same for two test-suites side by side; and used up, so that one process never gets
# a port twice.
_CANDIDATES = iter(random.SystemRandom().sample(_BLOCKS, len(_BLOCKS)))


def quiet_port() -> int:
    """One that nobody listens on, nor on its two neighbours at either side."""
    for port in _CANDIDATES:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for near in range(port - 2, port + 3):
                stack.enter_context(socket.socket()).bind(("", near))
            return port
    raise RuntimeError("no free port")
