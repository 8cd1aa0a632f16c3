"""How a run goes: what the launcher and those who watch say to the hub, and what it tells them.

Above each message: who sends it to whom, and what answers it.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from protocol.message import Count, Message
from protocol.version import Lineage, PolicyVersion

MAX_NOTE = 400
NoteText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NOTE)]


# --- how many actors --------------------------------------------------------------------------------


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The launcher's account of its actors."""

    wanted: Count
    running: Count
    """Actors whose process has a place and lives."""
    pending: Count = 0
    """Actors that wait for a place on the cluster."""
    leaving: Count = 0
    """Actors that finish what they hold before they go."""
    least: Count = 1
    most: Count | None = None
    """Bounds of `wanted`; None is none."""
    fitting: Count | None = None
    """Actors that may be ordered without force where `most` is None: as many as the nodes there are could hold."""
    scaling: str = "fixed"
    """`actors.scaling` as it is followed now."""
    advised: Count | None = None
    """Actors that would balance the learner; None while nothing can be said."""
    advice: str = ""
    """Why, in one sentence."""
    waiting_for: str = ""
    """What pending actors wait for, and since when; empty without any."""
    is_ending: bool = False
    """Whether the run ends after the step under way."""
    is_evaluator_gone: bool = False
    """Whether the evaluator is beyond its restarts, so that no evaluation will come any more."""


class ScaleOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The last Scale that the hub took."""

    number: Count
    """Grows with each, so that the launcher follows each once."""
    actors: Count | None


class Supervise(Message, frozen=True, kw_only=True):
    """Launcher to hub, about twice a second: its account, and the question of Inspect. Answer: Status, whose `order`
    it follows."""

    fleet: FleetStatus
    records_after: Count | None = None
    """As of Inspect."""


class Scale(Message, frozen=True, kw_only=True):
    """Anyone to hub: have so many actors from now on; None goes back to the scaling that the configuration names.
    Answer: Acknowledge, Refuse("bounds"), or Refuse("no_launcher") when none has spoken lately."""

    actors: Count | None
    force: bool = False
    """Also more than `FleetStatus.fitting`, for nodes that are yet to come."""


# --- what goes on -----------------------------------------------------------------------------------


class Note(Message, frozen=True, kw_only=True):
    """Launcher to hub: something happened that those who watch the run should read, such as an actor that died.
    Answer: Acknowledge."""

    text: NoteText


class Inspect(Message, frozen=True, kw_only=True):
    """Anyone to hub. Answer: Status."""

    records_after: Count | None = None
    """Send the step records after the first so many, as `Status.num_records` counted them in the answer before;
    0 asks for all that the hub keeps, None for none."""


class ClientStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub knows of one client."""

    name: str
    role: str
    version: PolicyVersion | None
    waiting_for: str
    num_leases: Count
    seen_s: float
    """Seconds since it was last heard."""
    metrics: dict[str, float]
    metrics_address: str = ""
    """HOST:PORT at which it serves its metrics; empty if it serves none."""
    since_s: float = 0.0
    """Seconds since it began to wait for this; or, when it waits for nothing, since it last waited."""
    host: str = ""


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while a run goes on."""

    name: str
    model: str
    mode: str
    """Schedule mode."""
    total_steps: Count
    max_staleness: Count
    batch_groups: Count


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at the hub, or `count` times the same thing within a short time."""

    number: Count
    """Grows with each line; a line whose count has grown keeps its number."""
    time_s: float
    """Seconds since 1970, of the last time that it happened."""
    text: str
    count: Count = 1
    is_warning: bool = False


class Status(Message, frozen=True, kw_only=True):
    """Hub to anyone, answers Inspect."""

    version: PolicyVersion
    lineage: Lineage
    published: PolicyVersion | None
    ledger: dict[str, int]
    """Entries by state; their sum is `opened`."""
    opened: Count
    total: Count | None
    """Prompts times epochs; None for a run without end."""
    lags: dict[str, int]
    """Buffered groups by lag."""
    events: dict[str, int]
    """Counts of what happened, such as expired leases and stale groups."""
    clients: list[ClientStatus]
    draining: bool
    fleet: FleetStatus | None = None
    """None before the launcher spoke."""
    order: ScaleOrder | None = None
    """None before anybody asked for another number of actors."""
    metrics_address: str = ""
    """HOST:PORT at which the hub serves its own metrics; empty if it serves none."""
    run: RunFacts | None = None
    uptime_s: float = 0.0
    """Seconds since the hub began."""
    idle_s: float = 0.0
    """Seconds since anything changed in the ledger."""
    since_commit_s: float | None = None
    """Seconds since the last optimizer step was committed; None before the first of this hub."""
    log: list[LogLine] = msgspec.field(default_factory=list)
    """What happened lately, oldest first."""
    records: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """Step records that Inspect asked for, oldest first: as many of the newest as the hub keeps."""
    num_records: Count = 0
    """Step records that the hub has been given; the last of `records` was number `num_records`."""
    evaluations: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """The newest few evaluations, oldest first, as in eval.jsonl."""
    evaluation_due: PolicyVersion | None = None
    """Weights that are being evaluated, or will be next; None without any."""
