"""What Ray's errors come to, in one line."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

CLEAN = "without an error"


def outcome(reference: Any) -> str:
    """How the task of this reference ended."""
    try:
        ray.get(reference)
    except RayError as error:
        return cause(error)
    return CLEAN


def cause(error: RayError) -> str:
    """What happened, without Ray's advice."""
    if isinstance(error, RayActorError):
        # What was raised while the part was made stands in the last line of Ray's text; of a death there is no more.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[-1] if "creation task" in str(error) else "its process died"
    found = getattr(error, "cause", None)
    # Ray's own texts go on with pages of advice; the first line is what happened.
    return f"{type(found).__name__}: {found}" if found is not None else str(error).strip().splitlines()[0]
