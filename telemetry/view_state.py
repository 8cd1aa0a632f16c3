"""What the terminal view shows, as plain data, and the figures that it derives from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from telemetry.catalogue import ACTOR_TOKEN_RATE
from telemetry.curve import Values, smooth
from telemetry.evaluations import current_evaluations
from telemetry.metric import reduce_values
from telemetry.parts import Part, client_parts, describe_waits, hub_part
from telemetry.record import DIAGNOSTICS, Record
from telemetry.summary import STATES, WINDOW, step_seconds

RECENT = 10
"""Steps over which times, rates and the lags of tokens are taken, so that they follow the run without jumping."""
_SHORTEST_AXIS = 20
_MAX_SLOTS = 1000


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What does not change while a run goes on."""

    name: str
    mode: str
    model: str
    total_steps: int
    max_staleness: int


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened, `count` times by `time_s` (seconds since 1970)."""

    time_s: float
    text: str
    count: int = 1
    is_warning: bool = False


@dataclass(frozen=True)
class ViewState:
    """One moment of a run.

    `status` is the hub's Status as plain data (`msgspec.to_builtins`), None before the hub answers; of a run that is
    over it has what the ledger's file holds. `happenings` come oldest first. `phase` says what goes on before the first
    step. `since_step_s` counts from the last record, `idle_s` from the last sign of progress of any kind; `silent_s` is
    how long the hub has not answered, 0 while it does.
    """

    info: RunInfo
    records: Sequence[Record] = ()
    status: Mapping[str, Any] | None = None
    happenings: Sequence[Happening] = ()
    phase: str = "starting"
    run_s: float = 0.0
    since_step_s: float = 0.0
    idle_s: float = 0.0
    stall_s: float = 120.0
    silent_s: float = 0.0
    is_over: bool = False

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.records[-1]["step"]) if self.records else 0

    @property
    def is_stalled(self) -> bool:
        """Whether nothing has moved for `stall_s`."""
        return self.idle_s >= self.stall_s and not self.is_over

    def left_s(self) -> float | None:
        """Estimated seconds to the last step; None before there is anything to judge by."""
        # The first step after a start waits for the engines, so it says nothing of the others.
        recent = step_seconds(self.records[-RECENT - 1 :])[1:]
        if not recent or self.info.total_steps <= self.step or self.is_over:
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
        known = [part.tokens_per_s for part in self.actors if part.tokens_per_s is not None]
        if known:
            return reduce_values(ACTOR_TOKEN_RATE, known)
        return self.records[-1]["generated_tokens_per_s"] if self.records else None

    @cached_property
    def rewards(self) -> list[float | None]:
        """Reward of each record, smoothed."""
        return smooth([record["reward_mean"] for record in self.records], WINDOW)

    def reward_figures(self) -> tuple[float | None, float | None, float | None]:
        """Smoothed reward at first, at last and at best; the first is of a whole window, where there is one."""
        whole = self.rewards[WINDOW - 1 :] or self.rewards[-1:]
        known = [reward for reward in whole if reward is not None]
        return (whole[0], whole[-1], max(known, default=None)) if whole else (None, None, None)

    def reward_curve(self) -> list[float | None]:
        """Reward over the steps, smoothed, in slots of equal numbers of steps; None where no step is done.

        The axis ends at the last step of the run, but begins shorter, so that a long run's curve fills half of it.
        """
        end = max(min(self.info.total_steps, max(2 * self.step, _SHORTEST_AXIS)), self.step, 1)
        num_slots = min(end, _MAX_SLOTS)
        slots: list[list[float]] = [[] for _ in range(num_slots)]
        for record, reward in zip(self.records, self.rewards, strict=True):
            if reward is not None and 1 <= record["step"] <= end:
                slots[(record["step"] - 1) * num_slots // end].append(reward)
        return [sum(slot) / len(slot) if slot else None for slot in slots]

    def recent_values(self, key: str, count: int) -> Values:
        """The last `count` values of a record's key."""
        return [record[key] for record in self.records[-count:]] if count > 0 else []

    def trained_lags(self) -> dict[int, float]:
        """Tokens trained in the last steps, by lag; empty where the records do not tell."""
        tokens: Counter[int] = Counter()
        for record in self.records[-RECENT:]:
            diagnostics = record.get(DIAGNOSTICS)
            by_lag = diagnostics.get("by_lag") if isinstance(diagnostics, dict) else None
            for lag, values in by_lag.items() if isinstance(by_lag, dict) else ():
                count = values.get("tokens") if isinstance(values, dict) else None
                if str(lag).isdecimal() and isinstance(count, int | float) and count > 0:
                    tokens[int(lag)] += count  # type: ignore[assignment]
        return dict(sorted(tokens.items()))

    def buffered_lags(self) -> dict[int, int]:
        """Groups that wait in the buffer, by lag."""
        lags = self.status.get("lags", {}) if self.status is not None else {}
        return {int(lag): count for lag, count in lags.items() if lag.isdecimal()}

    def ledger(self) -> list[tuple[str, int]]:
        """Entries by state in the order of their way, states without entries left out."""
        counts = dict(self.status["ledger"]) if self.status is not None else {}
        ordered = [*STATES, *sorted(set(counts) - set(STATES))]
        return [(state, counts[state]) for state in ordered if counts.get(state)]

    def missing_entries(self) -> int:
        """Prompts opened that are in no state; 0 in a ledger that adds up."""
        return self.status["opened"] - sum(count for _, count in self.ledger()) if self.status is not None else 0

    @cached_property
    def parts(self) -> list[Part]:
        """Hub, learner, evaluator, then actors by name; none before the hub has answered, and of a run that is over."""
        if self.status is None or self.is_over:
            return []
        last = self.records[-1] if self.records else {}
        shares = self.time_shares() or {}
        # The learner's rates are those of its records: its heartbeats carry none.
        measured = {"tokens_per_s": last.get("trained_tokens_per_s"), "busy": shares.get("train")}
        parts = [replace(part, **measured) if part.role == "learner" else part for part in client_parts(self.status)]
        return [hub_part(self.status, self.silent_s), *parts]

    @cached_property
    def actors(self) -> list[Part]:
        """The actors by name."""
        return [part for part in self.parts if part.role == "actor"]

    @property
    def fleet(self) -> Mapping[str, Any]:
        """The launcher's account of its actors (`protocol.status.FleetStatus`); empty where it has given none."""
        return (self.status.get("fleet") or {}) if self.status is not None else {}

    @cached_property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """Those known, by step: of the records, and of the hub what no record has told yet."""
        told = [record["eval"] for record in self.records if record["eval"]]
        newest = list((self.status or {}).get("evaluations", ()))
        return [dict(one) for one in current_evaluations([*told, *newest])]

    @property
    def advice(self) -> str:
        """How many actors would balance the learner, in one line; empty for none."""
        return str(self.fleet.get("advice", ""))

    def waits(self) -> str:
        """Who waits for what, in one sentence."""
        return describe_waits(self.parts) or "no process says that it waits"


def starting_phase(status: Mapping[str, Any] | None) -> str:
    """What goes on before the first step."""
    clients = status["clients"] if status else []
    if any(client["role"] == "actor" and client["version"] is not None for client in clients):
        return "generating the first groups"
    return "loading the engines and the learner"


def hub_happenings(status: Mapping[str, Any] | None) -> list[Happening]:
    """The hub's log."""
    lines = status.get("log", []) if status is not None else []
    return [Happening(line["time_s"], line["text"], line["count"], line["is_warning"]) for line in lines]
