"""`rapid scale`: more or fewer actors, while the run goes on."""

from __future__ import annotations

import re
from pathlib import Path

from protocol.errors import RefusedError
from protocol.status import Scale
from rapid.errors import UsageError
from rapid.locate import reach

AUTO = "auto"


def scale_actors(number: str, run: str | None, runs: Path, *, force: bool = False) -> str:
    """Ask the run's launcher for so many actors; what to tell the user.

    Args:
        number: how many, or "auto" for the scaling that the run's configuration names.
        run: name, folder or hub address; None means the one run that goes on.
        force: also more than the machines there are can hold, where the run has no `actors.max`.

    Raises:
        UsageError: not a number, out of bounds, or no run that answers.
    """
    wanted = None if number == AUTO else _parse(number)
    running = reach(run, runs)
    try:
        running.request(Scale(actors=wanted, force=force))
        fleet = running.inspect()["fleet"]
    except RefusedError as error:
        raise UsageError(f"run {running.name!r}: {error.reason}") from None
    finally:
        running.client.close()
    now = f"it has {fleet['running']} now" + (f", {fleet['pending']} wait for a place" if fleet["pending"] else "")
    what = f"{wanted} actor{'s' if wanted != 1 else ''}" if wanted is not None else "the configured scaling"
    return f"run {running.name!r} was asked for {what}; {now}. `rapid top` shows them come and go"


def _parse(number: str) -> int:
    if re.fullmatch(r"0*[1-9]\d{0,5}", number):
        return int(number)
    raise UsageError(f"{number!r} actors: expected a whole number from 1 to 999999, or {AUTO!r}")
