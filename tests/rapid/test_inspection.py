from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rapid.cli import app
from rapid.errors import UsageError
from rapid.inspection import open_run, write_report
from telemetry.errors import RunDirectoryError
from telemetry.run_dir import RunDirectory
from tests.telemetry.fakes import fill, furnish, make_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with two runs, and one that has no step yet."""
    for name, steps in (("one", 6), ("two", 4), ("empty", 0)):
        furnish(fill(RunDirectory.create(tmp_path / name), make_run(steps)), seconds=60)
    return tmp_path


def test_one_run_gets_a_report_and_plots(runs: Path) -> None:
    said = CliRunner().invoke(app, ["report", "one", "--runs", str(runs)])
    assert said.exit_code == 0
    assert said.stdout == f"wrote {runs / 'one' / 'report.html'} and {runs / 'one' / 'plots'}\n"
    assert "<h1>one</h1>" in (runs / "one" / "report.html").read_text()
    assert {"reward.png", "lag.png", "throughput.png"} <= {path.name for path in (runs / "one" / "plots").iterdir()}


def test_several_runs_are_compared_on_one_page_and_out_says_where(runs: Path, tmp_path: Path) -> None:
    assert write_report(["one", str(runs / "two")], runs) == f"wrote {runs / 'one' / 'compare.html'}"
    out = tmp_path / "there.html"
    assert write_report(["two", "one"], runs, out) == f"wrote {out}"
    assert "2 runs compared" in out.read_text()
    assert not (runs / "two" / "report.html").exists()


def test_what_cannot_be_reported_is_said_with_the_remedy(runs: Path) -> None:
    with pytest.raises(UsageError, match=r"run 'three': no such folder .*; runs in .*: empty, one, two"):
        write_report(["one", "three"], runs)
    with pytest.raises(UsageError, match="'empty' has no optimizer step yet"):
        write_report(["empty"], runs)
    with pytest.raises(UsageError, match=r"--out .*/nowhere/x\.html: No such file or directory; name a file"):
        write_report(["one"], runs, runs / "nowhere" / "x.html")


def test_a_full_disk_is_named_and_the_report_of_before_stays_whole(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(["one"], runs)
    page = runs / "one" / "report.html"
    before = page.read_text()

    def write_half(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match=rf"No space left on device: '{page}'"):
        write_report(["one"], runs)
    assert page.read_text() == before
    assert list(page.parent.glob("*.tmp")) == []


def test_a_run_that_is_called_like_another_folder_is_found(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = runs.parent / f"{runs.name}-here"
    (here / "one").mkdir(parents=True)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here)
    assert open_run("one", runs).path == runs / "one"
    assert open_run(str(runs / "two"), runs).path == runs / "two"
    with pytest.raises(UsageError, match=r"elsewhere is not a run's folder"):
        open_run("elsewhere", runs)
    RunDirectory.create(here / "two")
    assert open_run("two", runs).path == here / "two", "a run's folder that is named goes first"


def test_a_damaged_configuration_is_named_and_nothing_is_written(runs: Path) -> None:
    (runs / "two" / "config.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"config\.json is damaged"):
        write_report(["one", "two"], runs)
    assert not (runs / "one" / "compare.html").exists()
