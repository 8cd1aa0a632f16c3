"""The processes of a run as those who watch see them: what each does, since when, and how far behind it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry.catalogue import ACTOR_BUSY, ACTOR_TOKEN_RATE

SILENT_S = 15.0
"""A process unheard for longer is shown as silent."""
SORTS = ("name", "tokens/s", "lag", "waiting")
"""What the actors can be sorted by."""
_ROLES = ("learner", "evaluator", "actor")
"""Of clients, in the order in which they are shown."""
_WORK = {"learner": "trains", "evaluator": "evaluates", "actor": "generates"}
_WORDS = {
    "start": "starts",
    "the engine to start": "starts its engine",
    "nothing: drained": "drained",
}
"""Of what a process waits for, what reads better otherwise."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process. None stands for what it does not tell or what makes no sense for it."""

    name: str
    role: str
    """"hub", "learner", "evaluator" or "actor"."""
    activity: str
    since_s: float | None = None
    """Seconds since it does so."""
    is_waiting: bool = False
    is_silent: bool = False
    version: str = "–"
    behind: int | None = None
    """Optimizer steps between the weights that it has and the learner's."""
    num_leases: int | None = None
    tokens_per_s: float | None = None
    busy: float | None = None
    """Share of its time in which it works."""
    host: str = ""


def clean(text: str) -> str:
    """The text without what a terminal would obey: it came from other machines."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def client_parts(status: Mapping[str, Any]) -> list[Part]:
    """Learner first, then the evaluator, then actors by name; observers are left out."""
    parts = [_client_part(client, status) for client in status["clients"] if client["role"] in _ROLES]
    return sorted(parts, key=lambda part: (_ROLES.index(part.role), *_by_name(part)))


def hub_part(status: Mapping[str, Any], silent_s: float) -> Part:
    """The hub's own line; `silent_s` is how long it has not answered."""
    there = sum(client["role"] == "actor" for client in status["clients"])
    wanted = (status.get("fleet") or {}).get("wanted")
    actors = f"{there:,} actors" if wanted in (None, there) else f"{there:,}/{wanted:,} actors"
    activity = f"drains {actors}" if status["draining"] else f"serves {actors}"
    return Part(
        name="hub",
        role="hub",
        activity="silent" if silent_s else activity,
        since_s=silent_s or status.get("uptime_s"),
        is_silent=silent_s > 0,
        version=_label(status["version"]),
        num_leases=status["ledger"].get("leased"),
    )


def sort_actors(actors: Sequence[Part], sort: str, *, is_reversed: bool = False) -> list[Part]:
    """By one of SORTS: names rise; of the others the largest come first, and what is not known last either way."""
    if sort == "name":
        return sorted(actors, key=_by_name, reverse=is_reversed)
    known = [part for part in actors if _measure(part, sort) is not None]
    rest = [part for part in actors if _measure(part, sort) is None]
    known.sort(key=lambda part: (_measure(part, sort) * (1 if is_reversed else -1), *_by_name(part)))  # type: ignore[operator]
    return known + sorted(rest, key=_by_name)


def describe_waits(parts: Sequence[Part]) -> str:
    """Who waits for what and how long at most, alike ones together; empty if nobody does."""
    groups: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        if part.is_waiting or part.is_silent:
            groups.setdefault((part.role, "is silent" if part.is_silent else part.activity), []).append(part)
    return " · ".join(_describe_group(alike) for alike in groups.values())


def _describe_group(alike: list[Part]) -> str:
    first = alike[0]
    longest = max((part.since_s or 0.0) for part in alike)
    activity = "is silent" if first.is_silent else first.activity
    if len(alike) > 1:
        names = f"{len(alike)} {first.role}s"
        activity = activity.replace("waits", "wait", 1).replace("is silent", "are silent")
    else:
        names = first.name
    return f"{names} {activity}, {format_since(longest)}"


def format_since(seconds: float | None) -> str:
    """Short enough for a column: `"<1 s"`, `"12 s"`, `"4:20"`, `"1:04:20"`, `"3 d"`."""
    if seconds is None:
        return ""
    if seconds < 1:
        return "<1 s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    if hours >= 48:
        return f"{hours // 24} d"
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def finite(value: Any) -> float | None:
    """The number; None for none, and for what is not finite."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _client_part(client: Mapping[str, Any], status: Mapping[str, Any]) -> Part:
    waiting_for, is_silent = clean(client["waiting_for"]), client["seen_s"] > SILENT_S
    is_learner = client["role"] == "learner"
    # The learner does not say which weights it holds: they are those of its last commit.
    version = status["version"] if is_learner else client["version"]
    return Part(
        name=clean(client["name"]),
        role=client["role"],
        activity="silent" if is_silent else _activity(waiting_for, client["role"]),
        since_s=client["seen_s"] if is_silent else client.get("since_s"),
        # Nobody waits for the evaluator, so that it explains no stall.
        is_waiting=bool(waiting_for) and client["role"] != "evaluator",
        is_silent=is_silent,
        version=_label(version),
        behind=None if version is None or is_learner else _steps_behind(version, status),
        num_leases=client["num_leases"] if client["role"] == "actor" else None,
        tokens_per_s=finite(client["metrics"].get(ACTOR_TOKEN_RATE.name)),
        busy=finite(client["metrics"].get(ACTOR_BUSY.name)),
        host=clean(client.get("host", "")),
    )


def _activity(waiting_for: str, role: str) -> str:
    if not waiting_for:
        return _WORK[role]
    if role == "learner" and waiting_for.startswith("a batch"):
        return "waits for a batch"  # of which version is said beside it
    if waiting_for.startswith("checkpoint"):
        return f"writes {waiting_for}"
    return _WORDS.get(waiting_for, f"waits for {waiting_for.removeprefix('waiting for ')}")


def _steps_behind(version: Mapping[str, int], status: Mapping[str, Any]) -> int:
    """Steps from these weights to the learner's, through the branch point where their incarnations differ."""
    newest, branches = status["version"], status["lineage"]["branch_steps"]
    between = branches[max(version["incarnation"] - 1, 0) : max(newest["incarnation"] - 1, 0)]
    ancestor = min([version["step"], newest["step"], *between])
    return (version["step"] - ancestor) + (newest["step"] - ancestor)


def _measure(part: Part, sort: str) -> float | None:
    if sort == "tokens/s":
        return part.tokens_per_s
    if sort == "lag":
        return part.behind
    return (part.since_s or 0.0) if part.is_waiting or part.is_silent else None


def _by_name(part: Part) -> tuple[int, str]:
    return len(part.name), part.name


def _label(version: Mapping[str, int] | None) -> str:
    return f"v{version['step']}" if version is not None else "–"
