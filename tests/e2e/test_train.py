"""The main job with every part real: vLLM, DeepSpeed, Ray and sockets, on a tiny model."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import TINY, rapid

pytestmark = pytest.mark.slow


def mean_reward(records: list[dict[str, Any]]) -> float:
    return fmean(record["reward_mean"] for record in records)


def evaluated_reward(*options: str) -> float:
    """What `rapid eval` measures, with the engine that trained, on prompts held out from training."""
    said = rapid("eval", TINY, "--k", "1,4", *options)
    assert said.returncode == 0, said.stderr
    assert re.search(r"pass@4 +\d", said.stdout), said.stdout
    return float(re.findall(r"mean reward +(\S+)", said.stdout)[0])


def stopped_with_leases(run: Any, actor: psutil.Process) -> bool:
    """Stop an actor; it goes on if it holds no leases at that moment."""
    (name,) = {Path(file.path).stem for file in actor.open_files() if Path(file.path).parent == run.folder / "logs"}
    actor.suspend()
    if any(one.num_leases for one in run.status().clients if one.name == name):
        return True
    actor.resume()
    return False


def tokens_per_s(run: Any, actor: str) -> float:
    """What an actor generates now, as the hub hears from it; 0 while it is not there."""
    said = rapid("top", str(run.folder), "--once", "--json")
    assert said.returncode == 0, said.stderr
    found = [part["tokens_per_s"] for part in json.loads(said.stdout)["parts"] if part["name"] == actor]
    return (found[0] or 0.0) if found else 0.0


def test_a_run_learns_within_its_bound_and_accounts_for_every_prompt(start: Callable[..., Any]) -> None:
    run = start("learns", "schedule.steps=30")
    assert run.finish() == 0, run.output()
    records = run.records()
    assert [record["step"] for record in records] == list(range(1, 31))
    assert mean_reward(records[-5:]) > mean_reward(records[:5]) + 0.2
    assert max(record["lag_max"] for record in records) <= 2
    assert "adds up" in run.ledger()
    assert "Reward" in run.output()
    assert {path.name for path in (run.folder / "plots").glob("*.png")} >= {"reward.png", "lag.png", "throughput.png"}
    run.assert_left_nothing()
    assert evaluated_reward() < 0.2
    assert evaluated_reward("--checkpoint", str(run.folder / "checkpoints" / "step-000030")) > 0.4
    run.assert_left_nothing()


def test_a_killed_actor_is_replaced_and_its_prompts_are_not_lost(start: Callable[..., Any]) -> None:
    run = start("killed", "schedule.steps=100000", "learner.checkpoint_every=100000", "actors.count=2")
    run.wait_for_step(3)
    actor = run.parts("ActorPart")[0]
    run.wait_until(lambda: stopped_with_leases(run, actor), "actor at work")
    assert len(run.weight_files()) == 4
    actor.kill()
    run.wait_until(lambda: "starting it anew" in run.output(), "replacement")
    name = re.findall(r"(actor-\d) ended", run.output())[0]
    log = run.folder / "logs" / f"{name}.log"
    seen = len(log.read_text())
    run.wait_until(lambda: "loaded weights" in log.read_text()[seen:], "weights in the new actor")
    run.wait_until(lambda: tokens_per_s(run, name) > 0, "tokens of the new actor")
    run.wait_for_step(run.records()[-1]["step"] + 3)
    run.interrupt()
    assert run.finish() == 0, run.output()
    assert "adds up" in run.ledger()
    state = json.loads((run.folder / "ledger" / "state.json").read_text())
    assert state["events"]["leases_lost"] > 0, "the dead actor held nothing, so that nothing could be lost"
    assert state["ledger"]["counts"]["leased"] == 0
    run.assert_left_nothing()


def test_a_run_that_fails_for_want_of_actors_keeps_what_was_learned(start: Callable[..., Any]) -> None:
    run = start("failed", "schedule.steps=100000", "learner.checkpoint_every=100000", "actors.restarts=0")
    run.wait_for_step(3)
    run.parts("ActorPart")[0].kill()
    assert run.finish() == 1, run.output()
    assert "no actor is left" in run.output()
    done = run.records()[-1]["step"]
    assert (run.folder / "checkpoints" / f"step-{done:06d}" / "learner.json").is_file()
    assert "adds up" in run.ledger()
    run.assert_left_nothing()


def test_ctrl_c_ends_cleanly_and_resume_goes_on(start: Callable[..., Any], tmp_path: Path) -> None:
    first = start("resumed", "schedule.steps=100000")
    first.wait_for_step(4)
    first.interrupt()
    assert first.finish() == 0, first.output()
    done = first.records()[-1]["step"]
    assert done >= 4
    assert (first.folder / "checkpoints" / f"step-{done:06d}" / "learner.json").is_file()
    assert "adds up" in first.ledger()
    first.assert_left_nothing()

    last = done + 8
    second = start("resumed", f"schedule.steps={last}", options=("--resume",))
    assert second.finish() == 0, second.output()
    records = second.records()
    assert [record["step"] for record in records] == list(range(1, last + 1))
    assert {record["incarnation"] for record in records if record["step"] > done} == {2}
    assert max(record["lag_max"] for record in records) <= 2
    assert "adds up" in second.ledger()
    second.assert_left_nothing()


_SLOW_WORKERS = """
import pathlib, sys, time
is_worker = any(argument.endswith("default_worker.py") for argument in sys.orig_argv)
if is_worker and pathlib.Path(__file__).with_name("slow").exists():
    time.sleep(600)
"""


def test_ctrl_c_while_parts_start_ends_it_at_once(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python reads this before anything else, so that the learner's process is a long time coming.
    (tmp_path / "sitecustomize.py").write_text(_SLOW_WORKERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    run = start("early", "actors.engine=scripted")
    run.wait_until(lambda: "starting hub, learner and actors" in run.output(), "start of the parts")
    (tmp_path / "slow").touch()
    run.wait_until((run.folder / "ledger" / "state.json").exists, "hub")
    begin = time.monotonic()
    run.interrupt()
    assert run.finish() == 130
    assert time.monotonic() - begin < 60, "a second, and what Ray takes to end: the worker sleeps for ten minutes"
    assert "rapid: interrupted while the learner started: nothing was trained" in run.output()
    assert "Traceback" not in run.output()
    run.assert_left_nothing()


def test_alternate_takes_turns_within_its_lag(start: Callable[..., Any]) -> None:
    run = start("alternate", "schedule.mode=alternate", "schedule.broadcast_every=3", "schedule.steps=6")
    assert run.finish() == 0, run.output()
    # Each round trains three batches of one inference batch: their lags are 0, 1 and 2.
    records = run.records()
    assert [record["lag_max"] for record in records] == [0, 1, 2, 0, 1, 2]
    # Before any update and after three: generator and trainer are two programs with one set of weights, so that bf16
    # rounding is all that may differ.
    found = [record["logprob_diff_mean"] for record in records if record["lag_max"] == 0]
    assert len(found) == 2
    assert max(found) < 0.06
    assert "adds up" in run.ledger()
