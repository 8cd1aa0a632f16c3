"""The untrusted process: runs the checked program and answers the judge's calls with values.

It knows the program and the arguments of each call. Neither the tests nor what they expect ever reach it, and all that
it can send is a value, so the worst that a program does to it is to lie about its own results.
"""

from __future__ import annotations

import sys
import types
from typing import Any, NoReturn

from . import values
from .jail import FIRST_FD
from .wire import ClosedError, receive, receive_bytes, send

REASON_CHARACTERS = 200


class Candidate:
    """The program's names, and the objects that stay here because they have no plain form."""

    def __init__(self) -> None:
        # Not "__main__": what a program would do as a script, its own tests and demonstrations, is not asked for.
        self._module = types.ModuleType("candidate")
        sys.modules["candidate"] = self._module
        self._kept: list[Any] = []

    def load(self, source: bytes) -> Any:
        """Runs the program, which defines what is called later."""
        exec(compile(source, "<candidate>", "exec", dont_inherit=True), vars(self._module))
        return {"value": None}

    def answer(self, request: dict[str, Any]) -> Any:
        """Does what the judge asks."""
        if "call" in request:
            arguments = self._decode(request["args"])
            keywords = self._decode(request["kwargs"])
            return self._value(self._decode(request["call"])(*arguments, **keywords))
        if "set" in request:
            setattr(self._decode(request["set"]), request["name"], self._decode(request["value"]))
            return {"value": None}
        if "get" in request:
            return self._value(getattr(self._decode(request["get"]), request["name"]))
        if "iter" in request:
            return {"value": self._keep(iter(self._decode(request["iter"])))}
        try:
            return self._value(next(self._decode(request["next"])))
        except StopIteration:
            return {"stop": True}

    def _value(self, value: Any) -> dict[str, Any]:
        return {"value": values.encode(value, self._keep)}

    def _keep(self, value: Any) -> Any:
        self._kept.append(value)
        return {"t": "handle", "v": len(self._kept) - 1}

    def _decode(self, message: Any) -> Any:
        return values.decode(message, self._find)

    def _find(self, handle: Any) -> Any:
        if isinstance(handle, int):
            return self._kept[handle]
        if not hasattr(self._module, handle):
            raise NameError(f"name {handle!r} is not defined")
        return getattr(self._module, handle)


def serve(fd: int = FIRST_FD) -> NoReturn:
    """Answers the judge on `fd` until it has gone."""
    candidate = Candidate()
    source = receive_bytes(fd)
    reply = attempt(lambda: candidate.load(source))
    while True:
        try:
            send(fd, reply)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            # A value that JSON cannot hold, such as a list that holds itself.
            send(fd, {"error": describe(error)})
        request = receive(fd)
        reply = attempt(lambda request=request: candidate.answer(request))


def attempt(action: Any) -> Any:
    """What `action` returns, or the error that it raises, whichever that is: the program may raise anything."""
    try:
        return action()
    except ClosedError:
        raise
    except BaseException as error:  # The program may raise anything: that is its answer.
        return {"error": describe(error)}


def describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]
    except BaseException:  # The error's own text may raise, too.
        return "an error without a text"
