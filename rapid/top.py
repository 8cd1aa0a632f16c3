"""`rapid top`: a run in the terminal while it goes on, or its last state; as frames, as plain lines, or as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rapid.locate import find
from rapid.source import RunSource
from telemetry.controls import QUIT, Controls, press
from telemetry.document import document
from telemetry.frame import draw, plain_line
from telemetry.terminal import is_interactive, open_terminal
from telemetry.view_state import ViewState

_PIPE_WIDTH = 80


def top(run: str | None, runs: Path, *, once: bool, as_json: bool, refresh_s: float) -> None:
    """Show a run until the user quits; in a pipe until the run is over.

    Raises:
        UsageError: there is no such run, or its hub cannot be reached.
    """
    # What Python would print for want of a handler has no place among frames; what matters is shown there.
    logging.getLogger().addHandler(logging.NullHandler())
    source = RunSource(find(run, runs))
    try:
        state = source.look()
        if once:
            _print_document(state, indent=2) if as_json else _print_frame(state)
        elif not as_json and is_interactive():
            _interact(source, refresh_s)
        else:
            _follow(source, state, refresh_s, as_json=as_json)
    except BrokenPipeError:
        # Whoever read has had enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        source.close()


def _print_document(state: ViewState, indent: int | None = None) -> None:
    print(json.dumps(document(state), indent=indent, ensure_ascii=False, allow_nan=False), flush=True)


def _print_frame(state: ViewState) -> None:
    console = Console(highlight=False)
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else _PIPE_WIDTH
    console.print(Text("\n").join(draw(state, width, None).lines), soft_wrap=True)
    sys.stdout.flush()


def _follow(source: RunSource, state: ViewState, refresh_s: float, *, as_json: bool) -> None:
    while True:
        if as_json:
            _print_document(state)
        else:
            print(time.strftime("%H:%M:%S"), plain_line(state), flush=True)
        if state.is_over:
            return
        time.sleep(refresh_s)
        state = source.look()


def _interact(source: RunSource, refresh_s: float) -> None:
    """Draw when the hub has answered or is silent, a key was pressed, or the terminal has another size."""
    controls, state = Controls(), source.state()
    console = Console(highlight=False)
    next_ask_s, drawn_size, is_new = time.monotonic() + refresh_s, (0, 0), True
    with open_terminal(console) as terminal:
        while True:
            size = terminal.size()
            if is_new or size != drawn_size:
                frame, drawn_size = draw(state, *size, controls), size
                terminal.show(frame.lines)
            keys = terminal.wait_for_keys(next_ask_s - time.monotonic())
            for key in keys:
                if key in QUIT:
                    return
                controls = press(controls, key, frame.num_actors, len(state.actors))
            is_new = bool(keys)
            if time.monotonic() >= next_ask_s:
                next_ask_s = time.monotonic() + refresh_s
                is_new |= not source.ask(terminal.wake)
            is_new |= source.take()
            if is_new and not controls.is_paused:
                state = source.state()
