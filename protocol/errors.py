"""Errors of the protocol.

ProtocolError
├── CodecError          bytes that are not a message of this protocol: the peer's fault
├── RefusedError        the peer understood the request and said no, with a reason
├── PeerTimeoutError    no answer within the time allowed
├── AddressError        an address that cannot be bound or is not one: our own misuse
└── WeightsError        weights that arrived damaged, or of a version that is gone
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Base of everything that can go wrong between two of Rapid's processes."""


class CodecError(ProtocolError):
    """Received bytes are not a valid message: damaged, too large, or of another protocol."""


class RefusedError(ProtocolError):
    """The peer refused the request. `code` is for programs, the text for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason

    def __reduce__(self) -> tuple[type[RefusedError], tuple[str, str]]:
        # Without it an instance could not be rebuilt in another process, and Ray would lose what it says.
        return type(self), (self.code, self.reason)


class PeerTimeoutError(ProtocolError):
    """The peer gave no answer within the time allowed."""


class AddressError(ProtocolError):
    """A ZeroMQ address is malformed or cannot be bound, for example because its port is taken."""


class WeightsError(ProtocolError):
    """Weights arrived damaged (a checksum differs), or their version is no longer served."""
