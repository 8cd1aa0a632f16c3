"""The trusted process: runs the tests, in which the names of the checked program ask the candidate for values.

No code of the candidate's runs here. Where a test says `f(3) == 9`, f sends 3 to the candidate, the value that comes
back is rebuilt from plain types, and this process compares. Whether the tests passed is therefore known only here.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from typing import Any

from . import values
from .jail import FIRST_FD
from .wire import ClosedError, receive, receive_bytes, send, send_bytes

REASON_CHARACTERS = 300


class ProgramError(Exception):
    """The candidate raised; the text says what."""


class EndedError(BaseException):
    """The candidate has gone. No Exception, so that no test can take it for what it expects."""


class Program:
    """The candidate, asked over a socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.num_calls = 0

    def load(self, source: bytes) -> None:
        """Raises ProgramError when the program does not even load."""
        self._exchange(lambda: send_bytes(self._fd, source))

    def ask(self, **request: Any) -> dict[str, Any]:
        self.num_calls += "call" in request
        return self._exchange(lambda: send(self._fd, request))

    def value(self, **request: Any) -> Any:
        """What the candidate answers, rebuilt. Raises ProgramError when it raised or sent no value."""
        reply = self.ask(**request)
        try:
            return values.decode(reply["value"], lambda handle: Remote(self, handle))
        except Exception as error:  # Whatever a hostile sender makes of a description.
            raise ProgramError(f"its answer is no value: {type(error).__name__}: {error}") from None

    def _exchange(self, request: Any) -> dict[str, Any]:
        try:
            request()
            reply = receive(self._fd)
        except ClosedError as error:
            raise EndedError(str(error)) from None
        if not isinstance(reply, dict) or "error" in reply:
            raise ProgramError(str(reply["error"]) if isinstance(reply, dict) else "its answer is no message")
        return reply


class Remote:
    """A name of the candidate's, or an object that stays with it.

    It can be called, iterated over, passed back, and its attributes read and set, all by the candidate. It equals only
    itself, and it has no special attributes: numpy would take `__array_interface__` for an address to read at.
    """

    __slots__ = ("_rapid_handle", "_rapid_program")

    def __init__(self, program: Program, handle: Any) -> None:
        object.__setattr__(self, "_rapid_program", program)
        object.__setattr__(self, "_rapid_handle", handle)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        encoded = [values.encode(value, refer) for value in arguments]
        named = values.encode(keywords, refer)
        return self._rapid_program.value(call=refer(self), args=encoded, kwargs=named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._rapid_program.value(get=refer(self), name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._rapid_program.ask(set=refer(self), name=name, value=values.encode(value, refer))

    def __iter__(self) -> Iterator[Any]:
        iterator = self._rapid_program.value(iter=refer(self))
        while "stop" not in (reply := self._rapid_program.ask(next=refer(iterator))):
            yield values.decode(reply["value"], lambda handle: Remote(self._rapid_program, handle))


def refer(value: Any) -> Any:
    """The description of a remote object. Raises TypeError for an object that only the tests have."""
    if type(value) is not Remote:
        raise TypeError(f"a {type(value).__name__} cannot be passed to the checked program")
    return {"t": "handle", "v": object.__getattribute__(value, "_rapid_handle")}


def run_tests(program: Program, job: bytes, source: bytes) -> dict[str, Any]:
    """The verdict."""
    names, prelude, tests = marshal.loads(job)
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        program.load(source)
        exec(prelude, namespace)
        namespace.update({name: Remote(program, name) for name in names})
        exec(tests, namespace)
    except AssertionError as error:
        return verdict("a wrong answer" + (f": {error}" if str(error) else ""))
    except ProgramError as error:
        return verdict(f"the program raised {error}")
    except EndedError as error:
        return verdict(f"the program ended, by itself or at a limit: {error}")
    except BaseException as error:  # Tests may stumble over what they are given: not passed, whatever it is.
        return verdict(f"the tests raised {type(error).__name__}: {error}")
    return verdict(None if program.num_calls else "the tests called nothing")


def verdict(failure: str | None) -> dict[str, Any]:
    return {"passed": failure is None, "reason": (failure or "")[:REASON_CHARACTERS]}


def serve(parent: int = FIRST_FD, candidate: int = FIRST_FD + 1) -> None:
    """Judges one program: tests and source come on `parent`, the verdict goes there."""
    job = receive_bytes(parent)
    source = receive_bytes(parent)
    send(parent, run_tests(Program(candidate), job, source))
