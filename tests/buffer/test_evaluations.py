"""Which weights are evaluated while the run goes on, and what the hub makes of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from buffer.evaluations import KEPT, EvaluationDesk
from buffer.simulation import scripted_manifest
from protocol.config import ScheduleConfig
from protocol.messages import Commit, Evaluated, EvaluateLast, Goodbye, Hello, Records, WeightManifest
from telemetry.evaluations import read_evaluations
from tests.buffer.hub_kit import B, Clock, Peer, make_hub, run, serving, v
from tests.telemetry.fakes import make_record

RESULT: dict[str, Any] = {
    "pass_at": {"1": {"mean": 0.5, "low": 0.4, "high": 0.6, "prompts": 20}},
    "mean_reward": 0.5,
}


@pytest.mark.parametrize(
    ("every", "broadcast", "published", "due"),
    [
        (4, 1, range(13), [0, 4, 8, 12]),
        (4, 2, range(0, 13, 2), [0, 4, 8, 12]),
        # Where broadcasts do not meet the multiples, the first at or after each of them.
        (4, 3, range(0, 13, 3), [0, 6, 9, 12]),
        (2, 5, range(0, 16, 5), [0, 5, 10, 15]),
        # A resumed run broadcasts from where it begins.
        (10, 4, range(43, 70, 4), [43, 51, 63]),
        (None, 1, range(5), []),
    ],
)
def test_due_is_the_first_version_at_or_after_each_multiple(
    every: int | None, broadcast: int, published: range, due: list[int]
) -> None:
    desk = EvaluationDesk(every, broadcast, None)
    assert [step for step in published if desk.publish(scripted_manifest(v(step)))] == due


def test_the_last_weights_are_evaluated_though_it_is_not_their_turn_and_only_once() -> None:
    desk = EvaluationDesk(10, 1, None)
    assert not desk.publish(scripted_manifest(v(13)))
    assert not desk.ask_last(scripted_manifest(v(13)), v(14)), "weights that are not published cannot be had"
    assert desk.ask_last(scripted_manifest(v(13)), v(13))
    assert not desk.ask_last(scripted_manifest(v(13)), v(13))
    assert desk.due_version == v(13)
    desk.finish(Evaluated(version=v(13), result=RESULT), [])
    assert desk.due_version is None
    assert not desk.ask_last(scripted_manifest(v(13)), v(13))


def test_the_newest_due_stays_due_while_an_older_one_is_finished() -> None:
    desk = EvaluationDesk(10, 1, None)
    desk.publish(scripted_manifest(v(10)))
    desk.publish(scripted_manifest(v(20)))
    assert desk.finish(Evaluated(version=v(10), result=RESULT), []) is None
    assert desk.due_version == v(20)
    text = desk.finish(Evaluated(version=v(20), result=None, reason="no time"), [])
    assert text == "the evaluation of step 20 is left out: no time"
    assert desk.due_version is None
    assert [one["step"] for one in desk.recent] == [10]


def test_a_result_is_written_with_the_time_of_its_step_and_a_full_disk_is_no_error(tmp_path: Path) -> None:
    desk = EvaluationDesk(1, 1, tmp_path)
    records = [make_record(step, wall_s=2.0 * step) for step in (1, 2, 3)]
    for step in (0, 2, 9):
        desk.finish(Evaluated(version=v(step), result=RESULT), records)
    assert [(one["step"], one["wall_s"], one["source"]) for one in read_evaluations(tmp_path)] == [
        (0, 0.0, "training"),
        (2, 4.0, "training"),
        (9, None, "training"),
    ]
    EvaluationDesk(1, 1, tmp_path / "gone").finish(Evaluated(version=v(1), result=RESULT), records)
    for step in range(2 * KEPT):
        desk.finish(Evaluated(version=v(step), result=RESULT), [])
    assert len(desk.recent) == KEPT


def test_the_hub_tells_the_evaluator_alone_what_is_due_and_everybody_what_came_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        hub = make_hub(run_dir=tmp_path, evaluate_every=2, schedule=ScheduleConfig(max_staleness=0, steps=50))
        async with (
            serving(hub),
            Peer(hub, "a", "actor") as actor,
            Peer(hub, "eval-0", "evaluator") as evaluator,
            Peer(hub, "l", "learner") as learner,
        ):
            await learner.ask(scripted_manifest(v(0)))
            for step in range(3):
                await actor.submit(await actor.lease(B, v(step)), v(step))
                batch = await learner.pull(v(step))
                await learner.ask(Commit(batch_id=batch.batch_id, version=v(step + 1)))
                await learner.ask(Records(records=[make_record(step + 1, wall_s=1.5)]))
                await learner.ask(scripted_manifest(v(step + 1)))
            pushed = await evaluator.pushes()
            assert [one.version.step for one in pushed if isinstance(one, WeightManifest)] == [0, 2]
            assert len(pushed) == 2
            assert (await learner.status()).evaluation_due == v(2)
            await evaluator.ask(Evaluated(version=v(2), result=RESULT))
            status = await learner.status()
            assert status.evaluation_due is None
            assert [(one["step"], one["wall_s"]) for one in status.evaluations] == [(2, 1.5)]
            # The third is the last: it is asked for and told.
            await learner.ask(EvaluateLast(version=v(3)))
            assert (await evaluator.pushed.get()).version == v(3)  # type: ignore[union-attr]
            await evaluator.ask(Evaluated(version=v(3), result=None, reason="its weights are gone"))
            status = await learner.status()
            assert "step 3 is left out: its weights are gone" in status.log[-1].text
            assert {client.role for client in status.clients} == {"actor", "evaluator", "learner"}

    run(scenario)
    (line,) = (tmp_path / "eval.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 2


def test_an_evaluator_that_comes_again_is_told_what_is_due_and_one_that_is_silent_is_told_of() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(evaluate_every=1, clock=clock)
        async with serving(hub), Peer(hub, "l", "learner") as learner:
            await learner.ask(scripted_manifest(v(0)))
            async with Peer(hub, "eval-0", "evaluator") as evaluator:
                assert (await evaluator.pushed.get()).version == v(0)  # type: ignore[union-attr]
                clock.now += 1000
                hub.tick(clock.now)
                status = await learner.status()
                assert any("eval-0 is silent" in line.text and "leases" not in line.text for line in status.log)
                await evaluator.ask(Hello(role="evaluator", name="eval-0", pid=2))
                assert (await evaluator.pushed.get()).version == v(0)  # type: ignore[union-attr]
                await evaluator.ask(Goodbye(name="eval-0"))
            assert [client.role for client in (await learner.status()).clients] == ["learner"]

    run(scenario)
