"""`rapid top` on a real hub without engines: what it prints, what it refuses, and how it follows a run."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from rapid.errors import UsageError
from rapid.locate import find, reach
from rapid.source import RunSource
from telemetry.run_dir import RunDirectory, locked
from tests.rapid.served_run import B, ServedRun, serve_run
from tests.rapid.top_kit import COMMAND, ENVIRONMENT, rapid_top
from tests.telemetry.fakes import make_record

# --- one frame, one document ----------------------------------------------------------------------------


def test_once_prints_one_frame_of_80_columns_without_escape_codes(served: ServedRun) -> None:
    served.beat("actor-0", "a lease")
    served.settle()
    done = rapid_top(served.address, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert {len(line) for line in done.stdout.splitlines()} == {80}
    for wanted in (
        "rapid · trial · async · tiny",
        "3/20",
        "0.10  from 0.10",
        "75 %",
        "● serves 1 actors",
        "○ waits for a lease",
        f"settled {3 * B}  = {3 * B} opened",
        "actor-0 joined from box-b",
        "a checkpoint of step 3 is on the disk",
    ):
        assert wanted in done.stdout


def test_once_as_json_is_one_document_with_what_the_frame_shows(served: ServedRun) -> None:
    done = rapid_top(served.address, "--once", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["state"], told["step"], told["run"]["total_steps"]) == ("running", 3, 20)
    assert told["reward"]["by_step"] == [[1, 0.05], [2, 0.1], [3, 0.15]]
    assert told["lag"]["trained_tokens"] == {"0": 90, "1": 30}
    assert told["ledger"] == {
        "states": {"trained": 3 * B},
        "sum": 3 * B,
        "opened": 3 * B,
        "adds_up": True,
    }
    assert told["tokens_per_s"] == {"actors": 312.0, "learner": 600.0}
    assert [part["name"] for part in told["parts"]] == ["hub", "learner", "actor-0"]
    assert (told["actors"]["there"], told["actors"]["wanted"]) == (1, None)
    assert any(one["text"] == "actor-0 joined from box-b" for one in told["happenings"])


def test_a_run_is_found_by_name_by_folder_by_address_and_as_the_only_one(served: ServedRun, tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "older").write_config({})
    for run in ("trial", str(tmp_path / "trial"), served.address, None):
        with contextlib.closing(RunSource(find(run, tmp_path))) as source:
            assert source.look().step == 3
    with contextlib.closing(reach("trial", tmp_path).client):
        pass


# --- runs that are over, or cannot be reached ---------------------------------------------------------------


def test_a_run_that_is_over_shows_its_last_state(tmp_path: Path) -> None:
    with serve_run(tmp_path / "trial") as run:
        run.train(2)
        RunDirectory.open(tmp_path / "trial").append_metrics(make_record(1))
        RunDirectory.open(tmp_path / "trial").append_metrics(make_record(2, reward_mean=0.75))
    done = rapid_top("trial", "--runs", str(tmp_path), "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "over ─╮" in done.stdout
    assert "2/20" in done.stdout
    assert f"trained {2 * B}  = {2 * B} opened" in done.stdout
    told = json.loads(rapid_top("trial", "--runs", str(tmp_path), "--json").stdout)
    assert (told["state"], told["reward"]["by_step"]) == ("over", [[1, 0.25], [2, 0.75]])
    with pytest.raises(UsageError, match="does not go on"):
        reach("trial", tmp_path)


def test_a_run_whose_launcher_was_killed_is_over_although_it_left_its_hubs_address(tmp_path: Path) -> None:
    run_dir = RunDirectory.create(tmp_path / "trial")
    run_dir.write_config({"schedule": {"steps": 20}})
    with run_dir.hub_announced("tcp://127.0.0.1:1"):
        with contextlib.closing(RunSource(find("trial", tmp_path))) as source:
            assert source.look().is_over
        with pytest.raises(UsageError, match=r"Runs that go on in .*: none"):
            find(None, tmp_path)


def test_of_two_runs_that_go_on_one_must_be_named(served: ServedRun, tmp_path: Path) -> None:
    with serve_run(tmp_path / "other"):
        for ask in (find, reach):
            with pytest.raises(UsageError, match=r"which run\? Runs that go on in .*: other, trial; name one"):
                ask(None, tmp_path)


def test_a_run_that_starts_says_so(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "trial").write_config({"schedule": {"steps": 20}})
    with locked(tmp_path / "trial"), contextlib.closing(RunSource(find("trial", tmp_path))) as source:
        state = source.look()
        assert not state.is_over
        assert "does not listen" in state.phase


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("tcp://127.0.0.1:1", "its hub at tcp://127.0.0.1:1 does not answer"),
        ("tcp://nowhere", "Expected tcp://host:port"),
        ("nothing", "no such folder"),
    ],
)
def test_what_cannot_be_reached_is_one_clear_line_and_status_2(run: str, message: str, tmp_path: Path) -> None:
    done = rapid_top(run, "--runs", str(tmp_path), "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- following ----------------------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_at_each_refresh_until_the_run_is_over(tmp_path: Path) -> None:
    command = [*COMMAND, "trial", "--runs", str(tmp_path), "--refresh", "0.1", "--json"]
    with serve_run(tmp_path / "trial") as run:
        run.train()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["step"] == 1
        run.train()
        # Many lines may tell of step 1, for it goes on while `run.train` does.
        while json.loads(process.stdout.readline())["step"] != 2:
            pass
    *_, last = process.stdout.read().splitlines()
    assert json.loads(last)["state"] == "over"
    assert process.wait(20) == 0


@pytest.mark.parametrize("options", [("--once",), ("--once", "--json"), (), ("--json",)], ids=" ".join)
def test_a_full_disk_is_one_clear_line(served: ServedRun, options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, served.address, *options], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
    assert done.returncode == 1
    assert done.stderr == (
        "rapid: the output cannot be written: No space left on device; free some space, and try again\n"
    )


def test_a_reader_that_goes_away_ends_it_in_silence(served: ServedRun) -> None:
    process = subprocess.Popen(
        [*COMMAND, served.address, "--refresh", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"step  3/20" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr.read() == b""
