"""A moment of a run as one JSON document: what the terminal view shows, for programs. docs/top.md lists the keys."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from telemetry.parts import Part, clean
from telemetry.view_state import ViewState

_REWARDS = 100


def document(state: ViewState) -> dict[str, Any]:
    """Plain data that JSON knows; None where something is not known."""
    first, newest, best = state.reward_figures()
    last = state.records[-1] if state.records else {}
    return {
        "run": asdict(state.info),
        "state": _condition(state),
        "phase": None if state.records else state.phase,
        "step": state.step,
        "run_s": round(state.run_s, 3),
        "left_s": state.left_s(),
        "since_step_s": round(state.since_step_s, 3),
        "idle_s": round(state.idle_s, 3),
        "silent_s": round(state.silent_s, 3),
        "reward": {
            "last": newest,
            "first": first,
            "best": best,
            "by_step": [[record["step"], record["reward_mean"]] for record in state.records[-_REWARDS:]],
        },
        "lag": {
            "bound": state.info.max_staleness,
            "mean": last.get("lag_mean"),
            "max": last.get("lag_max"),
            "run_max": max((record["lag_max"] for record in state.records), default=None),
            "trained_tokens": {str(lag): count for lag, count in state.trained_lags().items()},
            "buffered_groups": {str(lag): count for lag, count in state.buffered_lags().items()},
        },
        "tokens_per_s": {"actors": state.generated_tokens_per_s(), "learner": last.get("trained_tokens_per_s")},
        "learner_time": state.time_shares(),
        "evaluation": dict(state.evaluations[-1]) if state.evaluations else None,
        "ledger": _ledger(state),
        "actors": {
            "there": len(state.actors),
            **{key: state.fleet.get(key) for key in ("wanted", "pending", "leaving", "advised", "scaling")},
        },
        "parts": [_part(part) for part in state.parts],
        "happenings": [{**asdict(one), "text": clean(one.text)} for one in state.happenings],
        "advice": state.advice or None,
    }


def _condition(state: ViewState) -> str:
    if state.is_over:
        return "over"
    if state.silent_s:
        return "silent"
    if state.is_stalled:
        return "stalled"
    return "running" if state.records else "starting"


def _ledger(state: ViewState) -> dict[str, Any] | None:
    if state.status is None:
        return None
    counts = dict(state.ledger())
    return {
        "states": counts,
        "sum": sum(counts.values()),
        "opened": state.status["opened"],
        "adds_up": state.missing_entries() == 0,
    }


def _part(part: Part) -> dict[str, Any]:
    return {**asdict(part), "version": None if part.version == "–" else part.version}
