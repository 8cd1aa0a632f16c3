"""Wall time of a run, split by what went on: from the timelines of its actors and its learner.

At each moment of training exactly one of these holds:

    both        an engine generates while the learner trains
    generate    an engine generates, the learner waits
    train       the learner trains or publishes weights, no engine generates
    load        no one does either, and an engine loads weights
    wait        none of all this: batches and weights are on their way, rewards are computed, a snapshot is written

Training lasts from the moment the first actor has its weights to the end of the last optimizer step; in a run of
several lives this holds for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from telemetry.timeline import Span, read_timeline

KINDS = ("generate", "both", "train", "load", "wait")
_LEARNING = ("train", "publish")


def read_timelines(folder: Path) -> dict[str, list[Span]]:
    """Spans by process, "actor-0", "learner-0"."""
    return {path.stem: read_timeline(path) for path in sorted(folder.glob("*.jsonl"))}


def split_time(timelines: Mapping[str, Sequence[Span]]) -> dict[str, float]:
    """Seconds of each of KINDS."""
    actors = [span for name, spans in timelines.items() if name.startswith("actor-") for span in spans]
    learners = [span for name, spans in timelines.items() if name.startswith("learner-") for span in spans]
    windows = training_windows(actors, learners)
    marks = [(span, "generate") for span in actors if span.what == "generate"]
    marks += [(span, "load") for span in actors if span.what == "load"]
    marks += [(span, "train") for span in learners if span.what in _LEARNING]
    seconds = dict.fromkeys(KINDS, 0.0)
    for low, high in windows:
        for kind, length in _sweep(marks, low, high):
            seconds[kind] += length
    return seconds


def training_windows(actors: Iterable[Span], learners: Iterable[Span]) -> list[tuple[float, float]]:
    """From an actor's first load of weights to the learner's last training, for each life of the learner."""
    ordered = sorted(learners, key=lambda span: span.start_s)
    starts = [span.start_s for span in ordered if span.what == "start"]
    begins = sorted(span.end_s for span in actors if span.what == "load")
    windows = []
    for start, end in pairwise([*starts, math.inf]):
        trained = [span.end_s for span in ordered if span.what in _LEARNING and start <= span.start_s < end]
        loaded = [moment for moment in begins if start <= moment < end]
        if trained and loaded and max(trained) > loaded[0]:
            windows.append((loaded[0], max(trained)))
    return windows


def _sweep(marks: Sequence[tuple[Span, str]], low: float, high: float) -> Iterable[tuple[str, float]]:
    """Stretches between two moments at which something began or ended, each with its kind."""
    changes = [(low, "", 0), (high, "", 0)]
    for span, what in marks:
        start, end = max(span.start_s, low), min(span.end_s, high)
        if end > start:
            changes += [(start, what, 1), (end, what, -1)]
    active = {"generate": 0, "load": 0, "train": 0, "": 0}
    before = low
    for moment, what, change in sorted(changes, key=lambda each: each[0]):
        if moment > before:
            yield _kind(active), moment - before
            before = moment
        active[what] += change


def _kind(active: Mapping[str, int]) -> str:
    if active["generate"]:
        return "both" if active["train"] else "generate"
    if active["train"]:
        return "train"
    return "load" if active["load"] else "wait"
