"""`rapid top` on a real run: from its folder, over the network, when it is over, and when it is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import rapid

pytestmark = pytest.mark.slow


def told_of(*arguments: str) -> dict[str, Any]:
    done = rapid("top", *arguments, "--once", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_top_tells_of_a_run_that_goes_on_and_of_one_that_is_over(start: Callable[..., Any], tmp_path: Path) -> None:
    run = start("watched", "schedule.steps=100000", "actors.engine=scripted", "actors.scripted.tokens_per_s=500")
    run.wait_for_step(5)
    address = json.loads((run.folder / "hub.json").read_text())["address"]
    runs = ("--runs", str(tmp_path))

    near, far = told_of("watched", *runs), told_of(address)
    for told in (near, far, told_of(*runs)):
        assert (told["state"], told["run"]["name"], told["run"]["model"]) == ("running", "watched", "tiny")
        assert told["step"] >= 5
        assert told["ledger"]["adds_up"]
        assert [part["role"] for part in told["parts"]] == ["hub", "learner", "actor"]
        assert told["tokens_per_s"]["actors"] > 0
        assert told["tokens_per_s"]["learner"] > 0
        assert sum(told["lag"]["trained_tokens"].values()) > 0
        assert told["lag"]["run_max"] <= told["lag"]["bound"] == 2
        assert any("actor-0 joined" in one["text"] for one in told["happenings"])
    # What came over the network is what lies in the file.
    rewards = [[record["step"], record["reward_mean"]] for record in run.records()]
    assert far["reward"]["by_step"] == rewards[: len(far["reward"]["by_step"])]

    frame = rapid("top", address, "--once", COLUMNS="80")
    assert frame.returncode == 0, frame.stderr
    assert {len(line) for line in frame.stdout.splitlines()} == {80}
    assert "\x1b" not in frame.stdout

    run.interrupt()
    assert run.finish() == 0, run.output()
    over = told_of("watched", *runs)
    assert (over["state"], over["step"], over["parts"]) == ("over", run.records()[-1]["step"], [])
    assert over["ledger"]["adds_up"]
    gone = rapid("top", address, "--once")
    assert (gone.returncode, gone.stdout) == (2, "")
    assert f"its hub at {address} does not answer" in gone.stderr
    assert len(gone.stderr.splitlines()) == 1
    run.wait_for_no_process()


def test_a_replaced_actor_is_told_to_who_watches_over_the_network(start: Callable[..., Any]) -> None:
    run = start(
        "restarts",
        "schedule.steps=100000",
        "actors.engine=scripted",
        "actors.scripted.tokens_per_s=500",
        # However long the new process takes to come, the hub has not given the old one up before.
        "buffer.client_timeout_s=600",
    )
    run.wait_for_step(2)
    address = json.loads((run.folder / "hub.json").read_text())["address"]
    run.parts("ActorPart")[0].kill()
    run.wait_until(lambda: "starting it anew" in run.output(), "replacement")
    run.wait_until(
        lambda: any("in the place of a process" in one["text"] for one in told_of(address)["happenings"]), "new actor"
    )
    texts = [one["text"] for one in told_of(address)["happenings"]]
    assert any("actor-0 ended" in text and "starting it anew" in text for text in texts), texts
    run.interrupt()
    assert run.finish() == 0, run.output()
