"""The terminal while a run goes on: a live frame where there is a terminal, a line for each step elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live

from telemetry.config import TelemetryConfig
from telemetry.frame import plain_line, render
from telemetry.parts import clean
from telemetry.record import Record
from telemetry.run_dir import RunDirectory
from telemetry.view_state import Happening, RunInfo, ViewState, hub_happenings

_KEPT_NOTES = 20


class LiveView:
    """Shows a run. Use it as a context manager, and call `update` about as often as it refreshes.

        with LiveView(run_dir, 100, mode="async", model="tiny", max_staleness=2, config=config) as view:
            view.note("actor-0 placed")
            view.update(run_dir.read_metrics(), status)

    Args:
        run_dir: the run's folder; it gives the name.
        total_steps: optimizer steps of the run.
        mode: schedule mode.
        model: the model's name.
        max_staleness: the bound η, in optimizer steps.
        config: how to show it, and after how long without progress to say so.
        console: where to show it; None takes standard output.
    """

    def __init__(
        self,
        run_dir: RunDirectory,
        total_steps: int,
        *,
        mode: str,
        model: str,
        max_staleness: int,
        config: TelemetryConfig,
        console: Console | None = None,
    ) -> None:
        self._console = console if console is not None else Console(highlight=False)
        self._kind = _choose_kind(config.view, self._console)
        self._state = ViewState(RunInfo(run_dir.name, mode, model, total_steps, max_staleness), stall_s=config.stall_s)
        self._notes: deque[Happening] = deque(maxlen=_KEPT_NOTES)
        self._told_counts: dict[int, int] = {}
        self._begun = self._last_step = self._last_move = time.monotonic()
        self._progress: object = None
        self._shown: tuple[int, int] | None = None
        self._told_stall = False
        self._live: Live | None = None
        if self._kind == "live":
            rate = 1 / config.view_refresh_s
            self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=rate)

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def state(self) -> ViewState:
        """What is shown at this moment."""
        now = time.monotonic()
        return replace(
            self._state,
            happenings=self._happenings(),
            run_s=now - self._begun,
            since_step_s=now - self._last_step,
            idle_s=now - self._last_move,
        )

    def set_phase(self, phase: str) -> None:
        """Say what goes on before the first step, such as "actor-0 loads the model"."""
        if phase == self._state.phase:
            return
        self._state = replace(self._state, phase=phase)
        self._last_move = time.monotonic()
        if self._kind == "plain":
            self._print(phase)

    def note(self, event: str) -> None:
        """Tell of something that happened, such as a process that died."""
        self._notes.append(Happening(time.time(), event, is_warning=True))
        if self._kind == "plain":
            self._print(event)

    def update(self, records: Sequence[Record], status: Mapping[str, Any] | None) -> None:
        """Show these records (`RunDirectory.read_metrics`) and this Status (as plain data; None: no answer)."""
        status = status if status is not None else self._state.status
        self._state = replace(self._state, records=records, status=status)
        self._mark_progress()
        if self._kind == "plain":
            self._print_new_steps()
            self._print_warnings()
            self._print_stall()

    def _happenings(self) -> list[Happening]:
        """Notes and the hub's log in order of time; what was noted here and told to the hub as well comes once."""
        told = hub_happenings(self._state.status)
        texts = {one.text for one in told}
        return sorted([*told, *(one for one in self._notes if one.text not in texts)], key=lambda one: one.time_s)

    def _mark_progress(self) -> None:
        now, status = time.monotonic(), self._state.status or {}
        newest = _stamp(self._state.records[-1]) if self._state.records else None
        progress = (newest, status.get("version"), status.get("ledger"), status.get("published"))
        if progress != self._progress:
            if self._progress is None or newest != self._progress[0]:  # type: ignore[index]
                self._last_step = now
            self._progress, self._last_move, self._told_stall = progress, now, False

    def _print_new_steps(self) -> None:
        for end, record in enumerate(self._state.records, start=1):
            if self._shown is None or _stamp(record) > self._shown:
                self._print(plain_line(replace(self.state, records=self._state.records[:end])))
                self._shown = _stamp(record)

    def _print_warnings(self) -> None:
        """Tell what the hub warns of: at first, and again whenever its count has doubled."""
        noted = {one.text for one in self._notes}
        for line in (self._state.status or {}).get("log", ()):
            number, count = line["number"], line["count"]
            if line["is_warning"] and count >= 2 * self._told_counts.get(number, 0):
                self._told_counts[number] = count
                if line["text"] not in noted:
                    self._print(clean(line["text"]))

    def _print_stall(self) -> None:
        state = self.state
        if state.is_stalled and not self._told_stall:
            self._print(f"nothing has moved for {state.idle_s:.0f} s: {state.waits()}")
            self._told_stall = True

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> Any:
        return render(self.state)


def _choose_kind(wanted: str, console: Console) -> str:
    if wanted == "auto":
        return "live" if console.is_terminal and not console.is_dumb_terminal else "plain"
    return wanted


def _stamp(record: Record) -> tuple[int, int]:
    return record["incarnation"], record["step"]
