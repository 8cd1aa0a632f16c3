"""What the terminal view shows, as plain data, and the figures that it derives from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from telemetry.catalogue import ACTOR_TOKEN_RATE
from telemetry.metric import reduce_values
from telemetry.record import Record
from telemetry.summary import STATES, step_seconds

RECENT = 10
"""Steps over which times and rates are taken, so that they follow the run without jumping."""
_SILENT_S = 15.0


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What does not change while a run goes on."""

    name: str
    mode: str
    model: str
    total_steps: int
    max_staleness: int


@dataclass(frozen=True, slots=True)
class ViewState:
    """One moment of a run.

    `status` is the hub's Status as plain data (`msgspec.to_builtins`), None before the hub answers. `events` are
    (clock, text), oldest first. `phase` says what goes on before the first step. `since_step_s` counts from the
    last record, `idle_s` from the last sign of progress of any kind.
    """

    info: RunInfo
    records: Sequence[Record] = ()
    status: Mapping[str, Any] | None = None
    events: Sequence[tuple[str, str]] = ()
    phase: str = "starting"
    run_s: float = 0.0
    since_step_s: float = 0.0
    idle_s: float = 0.0
    stall_s: float = 120.0

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.records[-1]["step"]) if self.records else 0

    @property
    def is_stalled(self) -> bool:
        """Whether nothing has moved for `stall_s`."""
        return self.idle_s >= self.stall_s

    def left_s(self) -> float | None:
        """Estimated seconds to the last step; None before there is anything to judge by."""
        # The first step after a start waits for the engines, so it says nothing of the others.
        recent = step_seconds(self.records)[1:][-RECENT:]
        if not recent or self.info.total_steps <= self.step:
            return None
        each = sum(recent) / len(recent)
        return max(each * (self.info.total_steps - self.step) - min(self.since_step_s, each), 0.0)

    def time_shares(self) -> dict[str, float] | None:
        """Shares of the learner's recent time spent waiting, training and publishing; None before a step."""
        recent = self.records[-RECENT:]
        sums = {what: sum(record[f"{what}_s"] or 0.0 for record in recent) for what in ("wait", "train", "publish")}
        total = sum(sums.values())
        return {what: value / total for what, value in sums.items()} if total else None

    def generated_tokens_per_s(self) -> float | None:
        """Rate of all actors: what they report themselves, or what the last step came to."""
        rates = [line.metrics.get(ACTOR_TOKEN_RATE.name) for line in self.clients() if line.role == "actor"]
        known = [rate for rate in rates if rate is not None]
        if known:
            return reduce_values(ACTOR_TOKEN_RATE, known)
        return self.records[-1]["generated_tokens_per_s"] if self.records else None

    def reward_series(self) -> list[float | None]:
        """Reward by step, one slot for each step of the run; None where a step is not done."""
        series: list[float | None] = [None] * max(self.info.total_steps, self.step)
        for record in self.records:
            series[record["step"] - 1] = record["reward_mean"]
        return series

    def ledger(self) -> list[tuple[str, int]]:
        """Entries by state in the order of their way, states without entries left out."""
        counts = dict(self.status["ledger"]) if self.status is not None else {}
        ordered = [*STATES, *sorted(set(counts) - set(STATES))]
        return [(state, counts[state]) for state in ordered if counts.get(state)]

    def clients(self) -> list[ClientLine]:
        """Learner first, then actors by name; observers are left out."""
        clients = self.status["clients"] if self.status is not None else []
        lines = [_client_line(client) for client in clients if client["role"] in ("learner", "actor")]
        return sorted(lines, key=lambda line: (line.role != "learner", len(line.name), line.name))

    def waits(self) -> str:
        """Who waits for what, in one sentence."""
        parts = [f"{line.name} {line.activity}" for line in self.clients() if line.is_waiting or line.is_silent]
        return "; ".join(parts) or "no process says that it waits"


@dataclass(frozen=True, slots=True)
class ClientLine:
    """What the view says of one process."""

    name: str
    role: str
    version: str
    activity: str
    is_waiting: bool
    is_silent: bool
    num_leases: int
    metrics: Mapping[str, float] = field(default_factory=dict)


def _client_line(client: Mapping[str, Any]) -> ClientLine:
    waiting_for, is_silent = client["waiting_for"], client["seen_s"] > _SILENT_S
    if is_silent:
        activity = f"silent for {client['seen_s']:.0f} s"
    elif waiting_for:
        activity = f"waits for {waiting_for.removeprefix('waiting for ')}"
    else:
        activity = "trains" if client["role"] == "learner" else "generates"
    return ClientLine(
        name=client["name"],
        role=client["role"],
        version=_version_label(client["version"]),
        activity=activity,
        is_waiting=bool(waiting_for),
        is_silent=is_silent,
        num_leases=client["num_leases"],
        metrics=client["metrics"],
    )


def _version_label(version: Mapping[str, int] | None) -> str:
    return f"v{version['step']}" if version is not None else "–"
