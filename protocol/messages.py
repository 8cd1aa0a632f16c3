"""Every message of the protocol. Above each type: who sends it to whom, and what answers it. Those of the launcher and
of who watches a run are in protocol.status.

Requests travel from a client (actor, learner) to the hub or to the learner's weight publisher, and
each gets exactly one answer. Pushes travel from the hub to a client and get none. Requests may be
repeated after a time-out: the hub answers a repeated one as it answered the first.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from protocol.group import Group
from protocol.message import Count, Message, Name
from protocol.status import Inspect, Note, Scale, Status, Supervise
from protocol.version import PolicyVersion

PROTOCOL_VERSION = 1


# --- any client -> hub ------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """Client to hub, first of all, and again after a reconnect. Answer: Acknowledge; then, for an actor,
    a push of the newest WeightManifest if there is one; for an evaluator, of that which is due."""

    role: Literal["actor", "evaluator", "learner", "observer"]
    name: Name
    protocol: int = PROTOCOL_VERSION
    pid: Count = 0
    host: str = ""
    metrics_address: str = ""
    """HOST:PORT at which the client serves its metrics; empty if it serves none."""


class Heartbeat(Message, frozen=True, kw_only=True):
    """Client to hub, every few seconds: I live, and this is what I do; also at once when an actor has loaded
    new weights, since a Lease that waits at the hub is then granted by these. Renews leases.
    Answer: Acknowledge, or Refuse("unknown_client") by a hub that was restarted: say Hello again."""

    name: Name
    version: PolicyVersion | None = None
    """Weights that the actor has loaded; None from the learner or before the first load."""
    waiting_for: str = ""
    """What the client waits for; empty while it works."""
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    """Rates and gauges by catalogue name."""
    leases: list[Name] | None = None
    """Leases that the actor holds. Only these are renewed, so that one whose grant was lost on the way expires;
    None renews all of its leases."""
    is_leaving: bool = False
    """Whether the actor takes no more leases, so that those that stay share them."""


# --- actor -> hub -----------------------------------------------------------------------------------


class Lease(Message, frozen=True, kw_only=True):
    """Actor to hub: give me prompts. The hub holds the answer back for up to `wait_s` if it can grant
    nothing; a second Lease of the same actor ends one that still waits. Answer: Work, perhaps of no items,
    or Refuse("unknown_client")."""

    name: Name
    max_groups: Annotated[int, msgspec.Meta(ge=1)]
    version: PolicyVersion
    """Weights that the actor has loaded: what is begun now is at least this new."""
    wait_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    lends: bool = False
    """Whether the learner has the actor's cores while that has no lease. Then the hub grants no more than the learner
    will need next, and all of it at once."""


class WorkItem(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt to be turned into a group."""

    lease_id: Name
    entry_id: Name
    """`"epoch:index"`."""
    epoch: Count
    index: Count
    """Which prompt of the task."""
    attempt: Count = 0
    """How often this prompt was tried before."""


class Work(Message, frozen=True, kw_only=True):
    """Hub to actor, answers Lease."""

    items: list[WorkItem]


class Submit(Message, frozen=True, kw_only=True):
    """Actor to hub: a lease is fulfilled. Answer: Acknowledge, or Refuse with code "unknown_lease" when
    the lease had expired, in which case the group is void and its prompt is with somebody else."""

    lease_id: Name
    group: Group


class Return(Message, frozen=True, kw_only=True):
    """Actor to hub: a lease is handed back. Answer: Acknowledge or Refuse("unknown_lease")."""

    lease_id: Name
    failed: bool
    """True counts towards the dead-letter limit; False (drained) does not."""
    reason: str = ""


class Goodbye(Message, frozen=True, kw_only=True):
    """Actor to hub, last of all: I leave; leases that I still hold return, and one that is being granted, too.
    Answer: Acknowledge."""

    name: Name


# --- learner -> hub ---------------------------------------------------------------------------------


class Pull(Message, frozen=True, kw_only=True):
    """Learner to hub: the batch that the update from `version` to its successor will train on. The hub
    holds the answer back for up to `wait_s`. Answer: Batch, or Refuse with code "empty" (not yet) or
    "exhausted" (every prompt of every epoch has ended)."""

    version: PolicyVersion
    wait_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Batch(Message, frozen=True, kw_only=True):
    """Hub to learner, answers Pull. `lags[i]` is the largest lag of any token of `groups[i]`."""

    batch_id: Name
    version: PolicyVersion
    groups: list[Group]
    lags: list[Count]
    groups_filtered: Count
    """Groups filtered for want of signal since the batch before."""
    generated_tokens: Count
    """Tokens generated since the batch before, filtered and stale groups included."""
    reward_mean: float
    """Mean reward of all groups submitted since the batch before, filtered ones included: the policy's
    reward without survivorship."""

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.lags) or not self.groups:
            raise ValueError(f"batch of {len(self.groups)} groups and {len(self.lags)} lags")


class Commit(Message, frozen=True, kw_only=True):
    """Learner to hub: the optimizer step on this batch is done and led to `version`. Answer: Acknowledge."""

    batch_id: Name
    version: PolicyVersion


class Records(Message, frozen=True, kw_only=True):
    """Learner to hub: lines of its metrics.jsonl, oldest first, for those who watch the run from where that file is
    not; after a resume the lines of before. Answer: Acknowledge, or Refuse("bad_record")."""

    records: list[dict[str, Any]]


class Snapshot(Message, frozen=True, kw_only=True):
    """Learner to hub, when it begins a checkpoint. Answer: LedgerState at this moment."""


class LedgerState(Message, frozen=True, kw_only=True):
    """Hub to learner, answers Snapshot: what a checkpoint keeps, so that a resumed run goes on from it."""

    state: dict[str, Any]
    """Plain data: maps with text keys, lists, text, bytes, numbers and None."""


class Settle(Message, frozen=True, kw_only=True):
    """Learner to hub: a checkpoint on disk holds `version`; all that was trained up to it is settled.
    Answer: Acknowledge."""

    version: PolicyVersion


class WeightManifest(Message, frozen=True, kw_only=True):
    """Learner to hub (answer: Acknowledge), and hub to every actor as a push: weights that can be fetched.

    `names`, `dtypes`, `shapes`, `sizes` and `checksums` are aligned; tensors lie end to end in this order.
    """

    version: PolicyVersion
    transport: Literal["zmq", "nccl", "ipc"]
    address: str
    """ZeroMQ address of the publisher."""
    names: list[str]
    dtypes: list[str]
    """torch dtype names, such as "bfloat16"."""
    shapes: list[list[Count]]
    sizes: list[Count]
    """Bytes of each tensor."""
    checksums: list[str]
    """xxh3_64 of each tensor's bytes, 16 hexadecimal digits."""

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (self.names, self.dtypes, self.shapes, self.sizes, self.checksums)}
        if len(lengths) != 1:
            raise ValueError(f"weight manifest of {self.version}: its lists have different lengths {sorted(lengths)}")

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(self.sizes)


# --- evaluation -------------------------------------------------------------------------------------


class Evaluated(Message, frozen=True, kw_only=True):
    """Evaluator to hub: what came of the weights that it was pushed, or why nothing did. Answer: Acknowledge."""

    version: PolicyVersion
    result: dict[str, Any] | None
    """By the keys of telemetry.evaluations but step, incarnation, wall_s and source; None if it was left out."""
    reason: str = ""
    """Why it was left out; empty with a result."""


class EvaluateLast(Message, frozen=True, kw_only=True):
    """Learner to hub, when the manifest of `version` is there: these weights are the last, so that they are to be
    evaluated whether it is their turn or not. `Status.evaluation_due` tells when that is done. Answer: Acknowledge."""

    version: PolicyVersion


# --- actor -> weight publisher ----------------------------------------------------------------------


class Fetch(Message, frozen=True, kw_only=True):
    """Actor to publisher: bytes [offset, offset + size) of the tensors end to end. Answer: Chunk, or
    Refuse("version_gone") when newer weights have displaced these."""

    version: PolicyVersion
    offset: Count
    size: Annotated[int, msgspec.Meta(ge=1)]


class Chunk(Message, frozen=True, kw_only=True):
    """Publisher to actor, answers Fetch."""

    version: PolicyVersion
    offset: Count
    data: np.ndarray
    """uint8[size], shorter only at the end."""


# --- hub -> client ----------------------------------------------------------------------------------


class Acknowledge(Message, frozen=True, kw_only=True):
    """Hub to client: done, and (where it matters) durable."""


class Refuse(Message, frozen=True, kw_only=True):
    """Hub or publisher to client: not done, nothing changed. The client raises RefusedError."""

    code: Name
    reason: str


class Drain(Message, frozen=True, kw_only=True):
    """Hub to client, push: take no new leases. With `abandon` hand back what is held, else finish it."""

    reason: str
    abandon: bool = True


class Phase(Message, frozen=True, kw_only=True):
    """Hub to actor, push, in `alternate` mode only: whether it is the actor's turn to use the devices. On False
    the engine sleeps, on True it wakes."""

    generating: bool


REQUESTS = (
    Hello
    | Heartbeat
    | Inspect
    | Note
    | Supervise
    | Scale
    | Lease
    | Submit
    | Return
    | Goodbye
    | Pull
    | Commit
    | Records
    | Snapshot
    | Settle
    | Evaluated
    | EvaluateLast
    | Fetch
)
ANSWERS = Acknowledge | Refuse | Work | Batch | LedgerState | Chunk | Status
PUSHES = Drain | Phase | WeightManifest
AnyMessage = REQUESTS | ANSWERS | PUSHES
