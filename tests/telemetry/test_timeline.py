from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telemetry.lines import read_lines
from telemetry.timeline import ACTIVITIES, Span, Timeline, read_timeline


class Clock:
    """Unix time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def path_of(run_dir: Path) -> Path:
    return run_dir / "timeline" / "learner-0.jsonl"


def enter(timeline: Timeline, clock: Clock, seconds: float, what: str, of: str = "") -> None:
    """Do this for so long."""
    timeline.enter(what, of)
    clock.now_s += seconds


def test_spans_follow_each_other_and_doing_the_same_again_begins_none(tmp_path: Path, clock: Clock) -> None:
    timeline = Timeline(tmp_path, "learner-0", now=clock)
    enter(timeline, clock, 2, "wait", "a batch")
    enter(timeline, clock, 1, "wait", "a batch")
    enter(timeline, clock, 5, "train", "step 1")
    timeline.close()
    timeline.close()
    assert read_timeline(path_of(tmp_path)) == [
        Span(1000, 1003, "wait", "a batch"),
        Span(1003, 1008, "train", "step 1"),
    ]


def test_a_disabled_timeline_leaves_nothing(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path, "learner-0", is_enabled=False)
    timeline.enter("train")
    timeline.close()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_ends_where_it_last_gave_a_sign(tmp_path: Path, clock: Clock) -> None:
    first = Timeline(tmp_path, "learner-0", now=clock)
    enter(first, clock, 11, "train", "step 1")
    first.flush()
    clock.now_s += 11
    first.flush()  # nothing new for longer than STILL_S: a line that says that it lives
    clock.now_s += 100
    with path_of(tmp_path).open("ab") as file:
        file.write(b'{"t": 1')
    second = Timeline(tmp_path, "learner-0", now=clock)
    enter(second, clock, 4, "wait")
    second.close()
    assert read_timeline(path_of(tmp_path)) == [Span(1000, 1022, "train", "step 1"), Span(1122, 1126, "wait")]


def test_a_file_that_grows_keeps_its_beginning_and_its_end(tmp_path: Path, clock: Clock) -> None:
    timeline = Timeline(tmp_path, "learner-0", limit_bytes=4000, now=clock)
    for step in range(1000):
        enter(timeline, clock, 1, "train", f"step {step}")
        if step % 10 == 0:
            timeline.flush()
            assert path_of(tmp_path).stat().st_size <= 4000
    timeline.close()
    spans = read_timeline(path_of(tmp_path))
    assert (spans[0].of, spans[-1].of) == ("step 0", "step 999")
    assert len(spans) > 20
    # Everything that is drawn was measured: across the gap there is no span.
    assert {span.end_s - span.start_s for span in spans} == {1}
    gaps = [(a.end_s, b.start_s) for a, b in itertools.pairwise(spans) if a.end_s != b.start_s]
    assert len(gaps) == 1


def test_a_full_disk_costs_the_timeline_and_not_the_run(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    timeline = Timeline(tmp_path, "learner-0", now=clock)
    (tmp_path / "timeline").rmdir()
    (tmp_path / "timeline").touch()
    timeline.enter("train")
    timeline.flush()
    timeline.close()
    assert f"the timeline {path_of(tmp_path)} is not written" in caplog.text


_PROGRAM = """
import sys, time
from pathlib import Path
from telemetry.timeline import Timeline
timeline = Timeline(Path(sys.argv[1]), "learner-0")
timeline.enter("train", "step 1")
print("ready", flush=True)
time.sleep(60)
"""


def test_kill_9_loses_no_more_than_seconds(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 30
    while len(read_lines(path_of(tmp_path))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [(line["what"], line.get("of")) for line in read_lines(path_of(tmp_path))] == [
        ("start", None),
        ("train", "step 1"),
    ]


def test_entering_costs_microseconds(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path, "learner-0")
    rounds_s = []
    for _ in range(10):
        start = time.perf_counter()
        for step in range(1000):
            timeline.enter("train", f"step {step}")
        rounds_s.append(time.perf_counter() - start)
    timeline.close()
    # 2 µs on the machine at hand; a shared one may be ten times slower. The best round is one that nothing held up.
    assert min(rounds_s) / 1000 < 50e-6


def test_activities_are_the_words_that_processes_use() -> None:
    root, used = Path(__file__).parents[2], set()
    for path in (root / "learner/loop.py", root / "actors/rollout.py"):
        text = path.read_text()
        used |= {word for word in ACTIVITIES if f'"{word}"' in text}
    assert used == set(ACTIVITIES)
