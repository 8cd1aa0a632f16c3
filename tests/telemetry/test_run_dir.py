from __future__ import annotations

from pathlib import Path

import pytest

from telemetry.errors import RecordError, RunDirectoryError
from telemetry.run_dir import RunDirectory, locked
from tests.telemetry.fakes import make_record


def steps(run_dir: RunDirectory) -> list[int]:
    return [record["step"] for record in run_dir.read_metrics()]


def test_an_existing_run_is_not_overwritten(run_dir: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match=r"exists already: choose another --run name, or .* --resume"):
        RunDirectory.create(run_dir.path)


def test_opening_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="does not exist"):
        RunDirectory.open(tmp_path / "nothing")
    (tmp_path / "photos").mkdir()
    with pytest.raises(RunDirectoryError, match="not a run's folder"):
        RunDirectory.open(tmp_path / "photos")


def test_a_run_below_a_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="Not a directory"):
        RunDirectory.create(tmp_path / "file" / "run")


def test_folders_are_there_after_create_and_after_open(run_dir: RunDirectory) -> None:
    run_dir.plots.rmdir()
    opened = RunDirectory.open(run_dir.path)
    assert opened.plots.is_dir()
    assert opened.logs.is_dir()
    assert opened.checkpoint_path(40) == run_dir.path / "checkpoints" / "step-000040"


def test_configuration_comes_back_and_leaves_no_temporary_file(run_dir: RunDirectory) -> None:
    run_dir.write_config({"learner": {"lr": 1e-5, "note": "η"}})
    assert run_dir.read_config() == {"learner": {"lr": 1e-5, "note": "η"}}
    assert not list(run_dir.path.glob("*.tmp"))


@pytest.mark.parametrize(("content", "named"), [(None, "missing"), ("{", "damaged"), ("[]", "expected a map")])
def test_a_bad_configuration_is_named(run_dir: RunDirectory, content: str | None, named: str) -> None:
    if content is not None:
        (run_dir.path / "config.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=named):
        run_dir.read_config()


def test_metrics_come_back_in_order(run_dir: RunDirectory) -> None:
    assert run_dir.read_metrics() == []
    for step in (1, 2, 3):
        run_dir.append_metrics(make_record(step))
    assert RunDirectory.open(run_dir.path).read_metrics() == [make_record(1), make_record(2), make_record(3)]


def test_a_reader_sees_what_another_process_appends(run_dir: RunDirectory) -> None:
    reader = RunDirectory.open(run_dir.path)
    run_dir.append_metrics(make_record(1))
    assert steps(reader) == [1]
    run_dir.append_metrics(make_record(2))
    assert steps(reader) == [1, 2]


def test_a_torn_last_line_is_left_out_when_reading_and_cut_off_when_appending(run_dir: RunDirectory) -> None:
    run_dir.append_metrics(make_record(1))
    with run_dir.metrics_path.open("ab") as file:
        file.write(b'{"step":2,"incarn')
    reader = RunDirectory.open(run_dir.path)
    assert steps(reader) == [1]
    RunDirectory.open(run_dir.path).append_metrics(make_record(2))
    assert steps(reader) == [1, 2]
    assert run_dir.metrics_path.read_bytes().count(b"\n") == 2


def test_a_damaged_whole_line_is_named(run_dir: RunDirectory) -> None:
    run_dir.append_metrics(make_record(1))
    with run_dir.metrics_path.open("ab") as file:
        file.write(b"hello\n")
    with pytest.raises(RecordError, match=r"line 2: b'hello'"):
        RunDirectory.open(run_dir.path).read_metrics()


def test_superseded_records_stay_in_the_history(run_dir: RunDirectory) -> None:
    for step, incarnation in ((1, 1), (2, 1), (3, 1), (2, 2)):
        run_dir.append_metrics(make_record(step, incarnation))
    assert steps(run_dir) == [1, 2]
    assert len(run_dir.read_history()) == 4


@pytest.mark.parametrize(("step", "incarnation"), [(2, 1), (1, 1)])
def test_a_step_is_not_recorded_twice(run_dir: RunDirectory, step: int, incarnation: int) -> None:
    run_dir.append_metrics(make_record(2))
    with pytest.raises(RecordError, match="expected a later step, or a higher incarnation"):
        run_dir.append_metrics(make_record(step, incarnation))


def test_a_folder_is_free_again_if_its_run_ended_before_the_first_step(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    assert not run.never_began(), "without a configuration it may be anybody's folder"
    run.write_config({})
    assert run.never_began()
    with locked(run.path):
        assert not run.never_began()
    run.append_metrics(make_record(1))
    assert not run.never_began()
    other = RunDirectory.create(tmp_path / "other")
    other.write_config({})
    other.checkpoint_path(1).mkdir()
    assert not other.never_began()
