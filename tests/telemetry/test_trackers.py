from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from telemetry.config import TelemetryConfig
from telemetry.errors import TrackerError
from telemetry.run_dir import RunDirectory
from telemetry.tracker_sinks import SINKS, TensorBoardSink, WandbSink
from telemetry.trackers import Trackers, check_trackers, scalars
from tests.telemetry.fakes import make_record

CONFIG = {"learner": {"lr": 2e-5}}
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard (requirements/trackers.txt) is not installed"
)
needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb (requirements/trackers.txt) is not installed"
)


class ListSink:
    """Keeps what it gets; fails at the step that is named."""

    package: ClassVar[str] = "json"
    written: ClassVar[list[tuple[int, int]]]
    closed: ClassVar[int]
    fails_at: ClassVar[object]

    def __init__(self, run_path: Path, config: Mapping[str, Any], telemetry: TelemetryConfig) -> None:
        if self.fails_at == "start":
            raise OSError("no room")

    @staticmethod
    def check() -> None: ...

    def write(self, record: dict[str, Any], values: Mapping[str, float]) -> None:
        if record["step"] == self.fails_at:
            raise ConnectionError("gone")
        self.written.append((record["incarnation"], record["step"]))

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def sink() -> type[ListSink]:
    return type("OneSink", (ListSink,), {"written": [], "closed": 0, "fails_at": None})


def follow(
    run_dir: RunDirectory, sinks: Mapping[str, Any], steps: range, told: list[str], incarnation: int = 1
) -> None:
    """What the launcher does: look at the records again and again."""
    telemetry = TelemetryConfig(trackers=list(sinks))
    with Trackers(run_dir, CONFIG, telemetry, told.append, sinks) as trackers:
        for step in steps:
            run_dir.append_metrics(make_record(step, incarnation))
            trackers.offer(run_dir.read_metrics())
            trackers.offer(run_dir.read_metrics())


def test_scalars_have_dotted_names_and_leave_nulls_out() -> None:
    record = make_record(
        7,
        logprob_diff_mean=None,
        eval={"step": 6, "pass_at": {"1": {"mean": 0.5, "low": 0.4}}},
        diagnostics={"entropy": 1.5, "by_lag": {"0": {"tokens": 9, "ess_fraction": None}}},
    )
    values = scalars(record)
    assert values["rapid.learner.reward_mean"] == 0.25
    assert values["rapid.learner.eval.pass_at.1.mean"] == 0.5
    assert values["rapid.learner.eval.step"] == 6
    assert values["rapid.learner.diagnostics.entropy"] == 1.5
    assert values["rapid.learner.lag.0.tokens"] == 9
    assert "rapid.learner.logprob_diff_mean" not in values
    assert "rapid.learner.lag.0.ess_fraction" not in values


def test_each_record_is_handed_over_once_and_a_resume_goes_on_with_the_new_ones(
    run_dir: RunDirectory, sink: type[ListSink]
) -> None:
    told: list[str] = []
    follow(run_dir, {"tensorboard": sink}, range(1, 4), told)
    follow(run_dir, {"tensorboard": sink}, range(3, 5), told, incarnation=2)
    assert sink.written == [(1, 1), (1, 2), (1, 3), (2, 3), (2, 4)]
    assert (sink.closed, told) == (2, [])


def test_an_evaluation_that_no_record_told_is_handed_over_at_the_end(
    run_dir: RunDirectory, sink: type[ListSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[dict[str, float]] = []
    monkeypatch.setattr(sink, "write", lambda self, record, values: handed.append(values))
    first, last = ({"incarnation": 1, "step": step, "mean_reward": 0.5} for step in (0, 2))
    with Trackers(run_dir, CONFIG, TelemetryConfig(trackers=["tensorboard"]), print, {"tensorboard": sink}) as trackers:
        run_dir.append_metrics(make_record(1))
        run_dir.append_metrics(make_record(2, eval=first))
        trackers.offer(run_dir.read_metrics())
        trackers.offer_last([first, last], run_dir.read_metrics())
    assert len(handed) == 3
    assert handed[2] == {
        "rapid.learner.step": 2,
        "rapid.learner.incarnation": 1,
        "rapid.learner.eval.step": 2,
        "rapid.learner.eval.incarnation": 1,
        "rapid.learner.eval.mean_reward": 0.5,
    }


@pytest.mark.parametrize(("fails_at", "reason"), [("start", "OSError: no room"), (2, "ConnectionError: gone")])
def test_a_tracker_that_fails_is_told_of_once_and_the_others_go_on(
    run_dir: RunDirectory, sink: type[ListSink], fails_at: object, reason: str
) -> None:
    bad = type("BadSink", (ListSink,), {"written": [], "closed": 0, "fails_at": fails_at})
    told: list[str] = []
    follow(run_dir, {"wandb": bad, "tensorboard": sink}, range(1, 6), told)
    assert told == [f"tracker wandb failed and is left out: {reason}"]
    assert len(sink.written) == 5
    assert bad.closed == 0


def test_without_trackers_there_is_no_thread(run_dir: RunDirectory) -> None:
    with Trackers(run_dir, CONFIG, TelemetryConfig(), print) as trackers:
        assert trackers._thread is None


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SINKS["tensorboard"], "package", "no_such_package")
    with pytest.raises(TrackerError, match=r"no_such_package is not installed: pip install .*trackers\.txt"):
        check_trackers(["tensorboard"])


# --- the real ones ----------------------------------------------------------------------------------


@needs_tensorboard
def test_tensorboard_shows_the_present_line_of_a_resumed_run(run_dir: RunDirectory) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told: list[str] = []
    follow(run_dir, {"tensorboard": TensorBoardSink}, range(1, 5), told)
    follow(run_dir, {"tensorboard": TensorBoardSink}, range(3, 7), told, incarnation=2)
    assert told == []
    events = EventAccumulator(str(run_dir.path / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    points = events.Scalars("rapid.learner/incarnation")
    assert [(point.step, point.value) for point in points] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2)]
    assert events.Scalars("rapid.learner/reward_mean")[0].value == pytest.approx(0.25)


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: a leveldb log (blocks of 32 KiB; checksum, length, kind, data) of protobuf."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, block, at, whole = path.read_bytes(), 32768, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole = (b"" if kind in (1, 2) else whole) + data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(whole)


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """W&B reads its environment once."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@needs_wandb
@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_offline_keeps_the_records_and_the_id_over_a_resume(
    run_dir: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])
    told: list[str] = []
    follow(run_dir, {"wandb": WandbSink}, range(1, 4), told)
    follow(run_dir, {"wandb": WandbSink}, range(3, 5), told, incarnation=2)
    assert told == []
    wandb.teardown()  # its service writes on after the run has ended
    files = sorted(run_dir.path.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 2
    assert len({path.name for path in files}) == 1
    steps: list[list[float]] = []
    for path in files:
        rows = [record.history.item for record in wandb_records(path) if record.WhichOneof("record_type") == "history"]
        values = [{".".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]
        steps.append([row["rapid.learner.step"] for row in values])
        assert all(row["rapid.learner.reward_mean"] == 0.25 for row in values)
    assert steps == [[1, 2, 3], [3, 4]]


@needs_wandb
@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_without_a_login_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TrackerError, match="WANDB_MODE=offline"):
        check_trackers(["wandb"])
