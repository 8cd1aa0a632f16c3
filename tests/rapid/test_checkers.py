"""What judges answers is tried before a run or an evaluation starts anything, and what it lacks is told then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from actors.engine import EngineError
from rapid import evaluate
from rapid.cli import app
from rapid.evaluate import Wishes
from rapid.preflight import prepare
from rapid.recipe import load_recipe
from tests.rapid.test_preflight import TINY

DATA = Path(__file__).resolve().parents[1] / "tasks" / "data"
WITHOUT_MATH_VERIFY = "import sys; sys.modules['math_verify'] = None; from rapid.cli import main; main()"
HUMANEVAL = ["task.name=humaneval", f"task.path={DATA / 'humaneval.jsonl'}", "task.params={}", "task.eval.size=2"]
ROOM = ["model.max_context=2048", "actors.reward_timeout_s=30"]


@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_judge_that_is_not_installed_is_refused_with_status_2(command: str, tmp_path: Path) -> None:
    task = ["task.name=math", f"task.path={DATA / 'math.jsonl'}", "task.params={}", "task.eval.size=2"]
    overrides = [*task, *ROOM, f"run.directory={tmp_path / 'runs'}"]
    sets = [part for override in overrides for part in ("--set", override)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MATH_VERIFY, command, str(TINY), *sets],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "math-verify judges, but that is not installed" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_sandbox_that_does_not_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rapid.errors import UsageError
    from tasks.sandbox import Sandbox, SandboxError

    def check(*_: object) -> None:
        raise SandboxError("no filter here")

    monkeypatch.setattr(Sandbox, "check", check)
    config = load_recipe(TINY, [*HUMANEVAL, *ROOM, f"run.directory={tmp_path}"])
    with pytest.raises(UsageError, match="generated code cannot be sandboxed here: no filter here"):
        prepare(config, TINY, resume=False)


def test_a_run_says_at_its_start_what_the_sandbox_does_not_contain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rapid.train.train", lambda plan, recipe: print("training"))
    overrides = [*HUMANEVAL, *ROOM, "task.sandbox=process", f"run.directory={tmp_path}"]
    app(["train", str(TINY), *(part for each in overrides for part in ("--set", each))], standalone_mode=False)
    said = capsys.readouterr()
    assert said.err.startswith("rapid: without bubblewrap one wall holds generated code")
    assert said.out == "training\n"


def test_an_evaluation_says_at_its_start_what_the_sandbox_does_not_contain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_session(*_: object) -> None:
        raise EngineError("not started here")

    monkeypatch.setattr(evaluate, "open_session", open_session)
    overrides = [*HUMANEVAL, *ROOM, "task.sandbox=process"]
    with pytest.raises(EngineError):
        evaluate.evaluate(
            str(TINY), Path("runs"), overrides, Wishes(), checkpoint=None, snapshots=False, json_file=None
        )
    assert capsys.readouterr().err.startswith("rapid: without bubblewrap one wall holds generated code")
