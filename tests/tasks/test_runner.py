"""Reward functions in processes of their own: whatever they do, the caller gets an outcome for each completion."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks import Reward, TaskConfig, TaskError
from tasks.runner import Outcome, RewardRunner

LONG_S = 30.0


def unruly(folder: Path | str = "") -> TaskConfig:
    return TaskConfig(name="tests.tasks.unruly:Unruly", params={"folder": str(folder)})


def score(
    completions: list[str], *, config: TaskConfig | None = None, index: int = 0, timeout_s: float = LONG_S
) -> Any:
    async def run() -> list[Outcome]:
        async with RewardRunner(config or unruly(), workers=1, timeout_s=timeout_s) as runner:
            return await runner.score(index, completions)

    return asyncio.run(run())


def value(outcome: Outcome) -> float:
    assert outcome.reward is not None, outcome.failure
    return outcome.reward.value


def wait_for_end(pid: int) -> None:
    """Returns when the process has ended. Raises if it takes more than 20 s."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 20.0)[0], f"process {pid} still runs"
    finally:
        os.close(handle)


def test_outcomes_come_in_the_order_of_the_completions() -> None:
    assert [value(outcome) for outcome in score([f"give {number}" for number in range(20)])] == list(range(20))


def test_the_reward_gets_the_prompt_of_its_index_and_may_have_parts() -> None:
    assert score(["index", "parts"], index=2) == [
        Outcome(Reward(2.0), None),
        Outcome(Reward(1.5, {"form": 0.5, "content": 1.0}), None),
    ]


def test_no_completions_give_no_outcomes() -> None:
    assert score([]) == []


def test_workers_import_neither_torch_nor_the_like() -> None:
    modules = ["torch", "transformers", "vllm", "ray", "deepspeed"]
    assert [value(outcome) for outcome in score([f"imported {module}" for module in modules])] == [0.0] * 5


FAILURES = {
    "fail too short": "the reward function raised ValueError: too short (unruly.py:",
    "unknown": "raised AttributeError: 'Unruly' object has no attribute 'unknown'",
    "exit": "raised SystemExit: 3 (unruly.py:",
    "give nan": "the reward is nan; expected a finite number",
    "give -inf": "the reward is -inf; expected a finite number",
    "wrong_part": "part 'form' is inf; expected a finite number",
    "text": "the reward is '1.0' (str); expected a finite number or a Reward",
    "nothing": "the reward is None (NoneType); expected",
    "end": "the reward function ended its process, which ended with status 7",
    "crash": "the reward function ended its process, which was killed by SIGSEGV",
}


def test_a_failure_is_an_outcome_with_its_reason_and_costs_only_its_completion() -> None:
    completions = [each for completion in FAILURES for each in (completion, "give 1")]
    outcomes = score(completions)
    for outcome, reason in zip(outcomes[::2], FAILURES.values(), strict=True):
        assert outcome.reward is None
        assert reason in outcome.failure
    assert [value(outcome) for outcome in outcomes[1::2]] == [1.0] * len(FAILURES)


def test_a_prompt_that_cannot_be_made_fails_all_its_completions() -> None:
    outcomes = score(["give 1", "give 2"], index=3)
    assert [outcome.failure for outcome in outcomes] == [outcomes[0].failure] * 2
    assert "prompt 3 failed: LookupError: no third question" in outcomes[0].failure


def test_a_hanging_reward_is_killed_and_the_others_are_scored_by_a_new_worker(tmp_path: Path) -> None:
    first, hung, last = score(["pid", "hang", "pid"], config=unruly(tmp_path), timeout_s=2)
    assert "took longer than 2 s; its process was killed" in hung.failure
    assert value(first) == int((tmp_path / "hanging").read_text()) != value(last)


def test_where_a_failure_voids_all_a_hanging_reward_holds_its_worker_once(tmp_path: Path) -> None:
    async def run() -> tuple[list[Outcome], list[Outcome]]:
        async with RewardRunner(unruly(tmp_path), workers=1, timeout_s=5.0, all_or_nothing=True) as runner:
            return await runner.score(0, ["give 1", "hang", "hang", "give 1"]), await runner.score(0, ["give 2"])

    (first, hung, *rest), (later,) = asyncio.run(run())
    assert value(first) == 1.0
    assert "took longer than 5 s" in hung.failure
    assert [outcome.failure for outcome in rest] == ["not judged, for another completion of its group had failed"] * 2
    assert value(later) == 2.0


def test_a_hanging_reward_delays_neither_the_event_loop_nor_other_workers(tmp_path: Path) -> None:
    async def run() -> bool:
        async with RewardRunner(unruly(tmp_path), workers=2, timeout_s=LONG_S) as runner:
            # Both workers must be up, or the limit would not measure the reward alone.
            await asyncio.gather(runner.score(0, ["give 1"]), runner.score(0, ["give 1"]))
            hanging = asyncio.create_task(runner.score(0, ["hang"]))
            for _ in range(5):
                await runner.score(1, ["give 1"])
            still_hangs = not hanging.done()
        await hanging
        return still_hangs

    assert asyncio.run(run())


def test_asynchronous_rewards_run_side_by_side() -> None:
    meeting = TaskConfig(name="tests.tasks.unruly:Meeting")
    assert [value(outcome) for outcome in score(["4"] * 4, config=meeting)] == [4.0] * 4


def test_an_asynchronous_reward_that_never_ends_is_stopped_without_costing_its_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.process.GRACE_S", 30.0)  # how soon the worker says so is not what is looked at
    outcomes = score(["9", "9"], config=TaskConfig(name="tests.tasks.unruly:Meeting"), timeout_s=0.5)
    assert [outcome.failure for outcome in outcomes] == ["the reward function took longer than 0.5 s"] * 2


def test_what_a_reward_started_is_killed_with_it(tmp_path: Path) -> None:
    (outcome,) = score(["hang_with_child"], config=unruly(tmp_path), timeout_s=2)
    assert "took longer" in outcome.failure
    wait_for_end(int((tmp_path / "child").read_text()))


def test_an_idle_worker_that_dies_is_replaced_and_nobody_is_blamed() -> None:
    async def run() -> tuple[float, float]:
        async with RewardRunner(unruly(), workers=1, timeout_s=LONG_S) as runner:
            first = value((await runner.score(0, ["pid"]))[0])
            os.kill(int(first), signal.SIGKILL)
            await asyncio.to_thread(wait_for_end, int(first))
            return first, value((await runner.score(0, ["pid"]))[0])

    first, second = asyncio.run(run())
    assert first != second


def test_closing_ends_a_reward_that_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hanging")  # its writer and we meet there

    async def run() -> list[Outcome]:
        runner = RewardRunner(unruly(tmp_path), workers=1, timeout_s=300.0)
        job = asyncio.create_task(runner.score(0, ["hang", "give 1"]))
        pid = int(await asyncio.to_thread((tmp_path / "hanging").read_text))
        await runner.close()
        await asyncio.to_thread(wait_for_end, pid)
        return await job

    assert [outcome.failure for outcome in asyncio.run(run())] == ["the reward runner was closed"] * 2


def test_closing_at_once_leaves_nothing_behind() -> None:
    async def run() -> list[int]:
        runner = RewardRunner(unruly(), workers=2)
        await runner.close()
        return [1 for worker in runner._workers if worker._link is not None]

    assert asyncio.run(run()) == []


def test_a_task_that_a_worker_cannot_build_is_an_error_and_no_outcome() -> None:
    with pytest.raises(TaskError, match=r"a reward worker could not build the task: .* OSError: rows is gone"):
        score(["give 1"], config=TaskConfig(name="tests.tasks.unruly:Failing", params={"file": "rows"}))


def test_math_verify_judges_in_a_worker(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "half?", "answer": "\\\\frac{1}{2}"}')
    config = TaskConfig(name="jsonl", path=str(file), answer="math_verify")
    assert [value(outcome) for outcome in score(["it is 0.5", "$\\frac{2}{4}$", "2"], config=config)] == [1.0, 1.0, 0.0]


ORPHAN = """
import asyncio, sys
from tasks import TaskConfig
from tasks.runner import RewardRunner
config = TaskConfig(name="tests.tasks.unruly:Unruly", params={"folder": sys.argv[1]})
async def run():
    await RewardRunner(config, workers=1, timeout_s=600.0).score(0, ["hang"])
asyncio.run(run())
"""


def test_a_worker_amid_a_hanging_reward_dies_with_its_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hanging")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each or os.getcwd() for each in sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path)], env=environment)
    try:
        worker = int((tmp_path / "hanging").read_text())
    finally:
        parent.kill()
        parent.wait()
    wait_for_end(worker)
