"""`rapid scale` on a real hub without engines, whose launcher has given its account."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from protocol.blocking import BlockingClient
from protocol.status import FleetStatus, Status, Supervise
from rapid.cli import app
from rapid.errors import UsageError
from tests.rapid.served_run import ServedRun


@pytest.fixture
def launcher(served: ServedRun) -> Iterator[BlockingClient]:
    """Speaks for a machine that holds three actors, in a run without `actors.max`."""
    with contextlib.closing(BlockingClient(served.address)) as client:
        client.request(Supervise(fleet=FleetStatus(wanted=1, running=1, fitting=3)))
        yield client


def scale(runs: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["scale", "actors", *arguments, "--runs", str(runs)])


def ordered(launcher: BlockingClient) -> int | None:
    status = launcher.request(Supervise(fleet=FleetStatus(wanted=1, running=1, fitting=3)))
    assert isinstance(status, Status)
    return status.order.actors if status.order is not None else None


@pytest.mark.parametrize("arguments", [("3",), ("3", "trial"), ("003",), ("5000", "--force"), ("--force", "5000")])
def test_what_can_be_is_ordered_and_said(launcher: BlockingClient, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = scale(tmp_path, *arguments)
    assert done.exit_code == 0, done.output
    number = 5000 if "5000" in arguments else 3
    assert done.stdout.startswith(f"run 'trial' was asked for {number} actors; it has 1 now.")
    assert ordered(launcher) == number


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("-1", "'-1' actors: expected a whole number from 1 to 999999, or 'auto'"),
        ("0", "'0' actors: expected a whole number from 1"),
        ("two", "'two' actors: expected a whole number from 1"),
        ("1.5", "'1.5' actors: expected a whole number from 1"),
        ("9" * 5000, "actors: expected a whole number from 1"),
        ("5000", "run 'trial': 5000 actors: expected at most 3, which is what the machines there are can hold"),
    ],
)
def test_what_cannot_be_is_one_clear_line_and_nothing_is_ordered(
    launcher: BlockingClient, tmp_path: Path, number: str, said: str
) -> None:
    done = scale(tmp_path, number)
    assert isinstance(done.exception, UsageError), done.output
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert ordered(launcher) is None


def test_a_run_without_a_launcher_is_left_alone(served: ServedRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no launcher has spoken lately"):
        raise scale(tmp_path, "2").exception or AssertionError("it was ordered")
