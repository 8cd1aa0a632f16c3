"""The actor's loop against an in-memory hub, with the scripted engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.config import ActorsConfig
from actors.engine import EngineDiedError
from actors.rollout import Rollout
from actors.scripted_engine import ScriptedEngine
from actors.settings import RolloutSettings
from actors.text import ChatText
from protocol.config import ModelConfig, ScheduleConfig, WeightsConfig
from protocol.messages import Drain, Phase
from protocol.version import PolicyVersion
from tasks.config import TaskConfig
from telemetry import catalogue
from telemetry.catalogue import ACTOR_RUNNING
from telemetry.config import TelemetryConfig
from telemetry.exporter import Exporter
from telemetry.timeline import Timeline, read_timeline
from tests.actors.fakes import CountingTask, FakeHub, FakePublisher, LengthRunner, make_llama, perturb
from tests.telemetry.scrape import scrape, value

V0, V1 = PolicyVersion(1, 0), PolicyVersion(1, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return folder, make_llama(folder, tied=True)


class World:
    """A hub, a publisher and one actor."""

    def __init__(self, folder: Path, module, num_prompts: int, run_dir: Path | None = None, loan=None, **actors):
        self.module = module
        self.hub, self.publisher, self.runner = FakeHub(num_prompts), FakePublisher(), LengthRunner()
        defaults = {"engine": "scripted", "group_size": 3, "max_tokens": 5, "concurrent_groups": 4, "lease_batch": 1}
        self.settings = RolloutSettings(
            name="actor-0",
            hub_address=self.hub.server.address,
            model_path=folder,
            model=ModelConfig(path="tiny", max_context=64),
            actors=ActorsConfig(**(defaults | {"heartbeat_s": 0.05, "lease_wait_s": 0.2} | actors)),
            schedule=ScheduleConfig(),
            weights=WeightsConfig(chunk_bytes=65536),
            task=TaskConfig(name="tests.actors.fakes:CountingTask"),
            telemetry=TelemetryConfig(),
            run_dir=folder,
            loan=loan,
        )
        text = ChatText(folder)
        self.engine = ScriptedEngine(folder, self.settings.actors, text.stop_token_ids)
        self.exporter = Exporter("actor-0", self.settings.telemetry)
        self.stop, self.leave = asyncio.Event(), asyncio.Event()
        self.timeline = Timeline(run_dir or folder, "actor-0", is_enabled=run_dir is not None)
        self.rollout = Rollout(
            self.settings, CountingTask(), text, self.engine, self.runner, self.exporter, self.timeline
        )

    async def publish(self, version: PolicyVersion) -> None:
        await self.hub.push(self.publisher.publish(version, self.module))


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    """The actor at work; stopped at the end, and its error raised."""
    task = asyncio.create_task(world.rollout.run(world.stop, world.leave))
    try:
        yield world
    finally:
        world.stop.set()
        await asyncio.wait_for(task, 20)
        await world.publisher.close()
        await world.hub.close()
        world.exporter.close()
        world.timeline.close()


def test_actor_leases_nothing_before_it_has_weights_and_then_serves_every_prompt(model):
    async def scenario():
        async with running(World(*model, num_prompts=10)) as world:
            hub = world.hub
            await hub.until(lambda: any(beat.waiting_for == "weights" for beat in hub.heartbeats))
            assert hub.leases == []
            await world.publish(V0)
            await hub.until(lambda: len(hub.groups) == 10)
            return hub

    hub = asyncio.run(scenario())
    assert sorted(group.entry_id for group in hub.groups) == [f"0:{i}" for i in range(10)]
    assert {version for group in hub.groups for version in group.versions()} == {V0}
    assert all(group.num_completions == 3 and group.lengths.max() <= 5 for group in hub.groups)
    assert hub.leases[0].version == V0
    # concurrent_groups 4 and one ahead: never more than 5 asked for
    assert max(lease.max_groups for lease in hub.leases) == 5
    assert hub.heartbeats[-1].version == V0


def test_the_timeline_tells_what_the_actor_did_and_for_what_it_waited(model, tmp_path):
    async def scenario():
        async with running(World(*model, num_prompts=10, run_dir=tmp_path)) as world:
            await world.hub.until(lambda: any(beat.waiting_for == "weights" for beat in world.hub.heartbeats))
            await world.publish(V0)
            await world.hub.until(lambda: len(world.hub.groups) == 10)
            await world.publish(V1)
            await world.hub.until(lambda: world.hub.heartbeats[-1].version == V1)

    asyncio.run(scenario())
    spans = read_timeline(tmp_path / "timeline" / "actor-0.jsonl")
    told = [(span.what, span.of) for span in spans]
    expected = [("wait", "weights"), ("load", "weights 1.0"), ("generate", "weights 1.0"), ("load", "weights 1.1")]
    assert [one for one in told if one in expected][:2] == expected[:2]
    assert set(expected) <= set(told)
    assert ("wait", "a lease") in told
    assert all(before.end_s <= after.start_s for before, after in itertools.pairwise(spans))


def test_a_prompt_beyond_the_context_goes_back_as_failed_with_the_reason(model):
    async def scenario():
        async with running(World(*model, num_prompts=14)) as world:
            await world.publish(V0)
            await world.hub.until(lambda: len(world.hub.groups) == 13 and world.hub.returns)
            return world.hub

    hub = asyncio.run(scenario())
    returned = hub.returns[0]
    assert (returned.lease_id, returned.failed) == ("lease-13", True)
    assert "500 tokens" in returned.reason
    assert "max_context = 64" in returned.reason


@contextlib.asynccontextmanager
async def one_reward_failing(model) -> AsyncIterator[World]:
    """Six prompts are served, of which one came back for want of rewards."""
    world = World(*model, num_prompts=6)
    world.runner.failing = (2,)
    async with running(world):
        await world.publish(V0)
        await world.hub.until(lambda: len(world.hub.groups) == 5 and world.hub.returns)
        yield world


def test_a_failed_reward_returns_the_lease_and_the_others_go_on(model):
    async def scenario():
        async with one_reward_failing(model) as world:
            return world.hub

    hub = asyncio.run(scenario())
    returned = hub.returns[0]
    assert (returned.lease_id, returned.failed) == ("lease-2", True)
    assert "it raised ValueError" in returned.reason


def test_what_an_actor_did_stands_in_its_metrics(model):
    async def scenario():
        async with one_reward_failing(model) as world:
            drawn = sum(len(group.token_ids) for group in world.hub.groups)
            # Rates and sums reach the exporter with the next heartbeat.
            seen = len(world.hub.heartbeats)
            await world.hub.until(lambda: len(world.hub.heartbeats) > seen + 1)
            return drawn, await asyncio.to_thread(scrape, world.exporter)

    drawn, samples = asyncio.run(scenario())
    assert value(samples, catalogue.ACTOR_GROUPS) == 5
    assert value(samples, catalogue.ACTOR_GROUPS_FAILED) == 1
    assert value(samples, catalogue.ACTOR_REWARD_FAILURES) == 3  # one for each completion of the group
    assert value(samples, catalogue.ACTOR_REWARD, "_count") == 6
    assert value(samples, catalogue.ACTOR_WEIGHT_FETCH, "_count") == 1
    assert value(samples, catalogue.ACTOR_WEIGHT_FETCH, "_sum") > 0
    num_bytes = sum(weight.nbytes for weight in model[1].parameters())
    assert value(samples, catalogue.ACTOR_WEIGHT_BYTES) == num_bytes
    assert value(samples, catalogue.ACTOR_STALL, "_count") == 1
    assert value(samples, catalogue.ACTOR_TOKENS) > drawn  # the failed group's too
    assert value(samples, catalogue.ACTOR_COMPLETION_TOKENS, "_sum") == value(samples, catalogue.ACTOR_TOKENS)


def test_rewards_that_are_late_do_not_keep_the_engine_empty(model):
    async def scenario():
        world = World(*model, num_prompts=8)
        world.runner.gate.clear()
        async with running(world):
            await world.publish(V0)
            # 5 groups fill the engine; the others are leased although none has its rewards.
            await world.hub.until(lambda: not world.hub.waiting)
            assert world.hub.groups == []
            await world.hub.until(lambda: world.hub.last_beat.waiting_for == "rewards")
            world.runner.gate.set()
            await world.hub.until(lambda: len(world.hub.groups) == 8)

    asyncio.run(scenario())


def test_weights_that_come_while_groups_are_under_way_show_in_their_spans(model):
    async def scenario():
        world = World(*model, num_prompts=4, scripted={"tokens_per_s": 60.0}, max_tokens=40)
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: not world.hub.waiting)
            perturb(world.module, seed=1)
            await world.publish(V1)
            await world.hub.until(lambda: len(world.hub.groups) == 4)
            return world.hub

    hub = asyncio.run(scenario())
    mixed = [group for group in hub.groups if len(group.versions()) == 2]
    assert mixed
    for group in mixed:
        assert group.versions() == [V0, V1]
        assert group.span_steps.tolist() == sorted(group.span_steps.tolist()) or group.span_counts.max() == 2
    assert hub.heartbeats[-1].version == V1


def test_drain_with_abandon_hands_the_leases_back_unfailed_and_takes_no_more(model):
    async def scenario():
        world = World(*model, num_prompts=20, scripted={"tokens_per_s": 5.0})
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: world.hub.last_beat.metrics.get(ACTOR_RUNNING.name) == 15)
            await world.hub.push(Drain(reason="the end"))
            await world.hub.until(lambda: len(world.hub.returns) == 5)
            num_leases = len(world.hub.leases)
            await world.hub.until(lambda: world.hub.last_beat.waiting_for == "nothing: drained")
            assert len(world.hub.leases) == num_leases
            return world.hub

    hub = asyncio.run(scenario())
    assert {returned.failed for returned in hub.returns} == {False}
    assert hub.groups == []


def test_drain_without_abandon_finishes_what_is_held(model):
    async def scenario():
        world = World(*model, num_prompts=20, scripted={"tokens_per_s": 50.0})
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: world.hub.last_beat.metrics.get(ACTOR_RUNNING.name) == 15)
            await world.hub.push(Drain(reason="the end", abandon=False))
            await world.hub.until(lambda: world.hub.last_beat.waiting_for == "nothing: drained")
            return world.hub

    hub = asyncio.run(scenario())
    assert len(hub.groups) + len(hub.returns) + len(hub.waiting) == 20
    assert len(hub.groups) >= 5


def test_an_actor_that_is_to_leave_finishes_what_it_holds_and_says_goodbye(model):
    async def scenario():
        world = World(*model, num_prompts=20, scripted={"tokens_per_s": 50.0})
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: world.hub.last_beat.metrics.get(ACTOR_RUNNING.name) == 15)
            world.leave.set()
            await asyncio.wait_for(world.stop.wait(), 20)
            await world.hub.until(lambda: world.hub.goodbyes)
            return world.hub

    hub = asyncio.run(scenario())
    assert hub.goodbyes == ["actor-0"]
    # What was granted while it was leaving goes back; all else was finished.
    assert len(hub.groups) + len(hub.returns) + len(hub.waiting) == 20
    assert len(hub.groups) >= 5


def test_an_actor_that_leaves_with_empty_hands_waits_for_what_it_has_asked_for(model):
    async def scenario():
        world = World(*model, num_prompts=0)
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: world.hub.leases)
            world.leave.set()
            await world.hub.until(lambda: world.hub.last_beat.is_leaving)
            world.hub.waiting.append(0)
            async with world.hub.changed:
                world.hub.changed.notify_all()
            await world.hub.until(lambda: world.hub.goodbyes)
            return world.hub

    hub = asyncio.run(scenario())
    assert [(returned.lease_id, returned.failed) for returned in hub.returns] == [("lease-0", False)]


def test_the_hub_hears_at_once_that_an_actor_is_to_leave(model):
    async def scenario():
        world = World(*model, num_prompts=20, heartbeat_s=60, leave_s=0.5, scripted={"tokens_per_s": 5.0})
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: world.hub.leases)
            world.leave.set()
            await world.hub.until(lambda: world.hub.last_beat.is_leaving, timeout_s=10)
            return world.hub

    hub = asyncio.run(scenario())
    assert [beat.is_leaving for beat in hub.heartbeats].count(True) == 1


def test_an_actor_that_leaves_hands_back_what_takes_too_long(model):
    async def scenario():
        world = World(*model, num_prompts=20, leave_s=0.1, scripted={"tokens_per_s": 1.0})
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: world.hub.last_beat.metrics.get(ACTOR_RUNNING.name) == 15)
            world.leave.set()
            await world.hub.until(lambda: world.hub.goodbyes)
            return world.hub

    hub = asyncio.run(scenario())
    assert hub.groups == []
    assert sorted(returned.lease_id for returned in hub.returns) == [f"lease-{i}" for i in range(5)]
    assert {returned.failed for returned in hub.returns} == {False}


def test_stop_hands_everything_back_and_leaves_no_file(model):
    async def scenario():
        world = World(*model, num_prompts=20, scripted={"tokens_per_s": 5.0})
        async with running(world):
            await world.publish(V0)
            # 5 groups of 3
            await world.hub.until(lambda: world.hub.last_beat.metrics.get(ACTOR_RUNNING.name) == 15)
            files = list(world.rollout._receiver._store._locks)
            assert all(path.exists() for path in files)
        return world.hub, files

    hub, files = asyncio.run(scenario())
    assert sorted(returned.lease_id for returned in hub.returns) == [f"lease-{i}" for i in range(5)]
    assert not any(path.exists() for path in files)


def test_while_the_learner_has_the_devices_nothing_is_generated_or_leased(model):
    async def scenario():
        world = World(*model, num_prompts=5, scripted={"tokens_per_s": 50.0})
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: not world.hub.waiting)
            await world.hub.push(Phase(generating=False))
            await world.hub.until(lambda: "its turn" in world.hub.last_beat.waiting_for)
            num_leases, num_groups = len(world.hub.leases), len(world.hub.groups)
            num_beats = len(world.hub.heartbeats)
            await world.hub.until(lambda: len(world.hub.heartbeats) > num_beats + 4)
            assert len(world.hub.leases) <= num_leases + 1  # the one that was on its way
            assert len(world.hub.groups) <= num_groups + 1
            await world.hub.push(Phase(generating=True))
            await world.hub.until(lambda: len(world.hub.groups) == 5)

    asyncio.run(scenario())


def test_a_group_whose_lease_is_unknown_is_void_and_counted(model):
    async def scenario():
        world = World(*model, num_prompts=4)
        world.hub.refused = {"lease-1"}
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: len(world.hub.groups) == 3 and world.rollout._activity.groups_void == 1)
            return world

    world = asyncio.run(scenario())
    assert "lease-1" not in [item.lease_id for item in world.hub.returns]
    assert world.rollout._activity.groups_void == 1


def test_results_survive_a_hub_that_is_away_and_are_submitted_when_it_is_back(model):
    async def scenario():
        world = World(*model, num_prompts=5, scripted={"tokens_per_s": 50.0})
        world.rollout._link._answer_s = 0.3
        async with running(world):
            await world.publish(V0)
            await world.hub.until(lambda: not world.hub.waiting)
            address, first = world.hub.server.address, world.hub
            already = {group.entry_id for group in first.groups}
            await first.close()
            while world.rollout._link.is_reachable:
                await asyncio.sleep(0.02)
            world.hub = FakeHub(0, address)
            await world.hub.until(lambda: len({g.entry_id for g in world.hub.groups} | already) == 5)
            assert world.hub.hellos  # a hub that was started anew knows nobody

    asyncio.run(scenario())


def test_an_engine_that_dies_ends_the_actor_with_the_reason(model):
    async def scenario():
        world = World(*model, num_prompts=5)

        async def die(request):
            raise EngineDiedError("out of memory")

        world.engine.generate = die
        task = asyncio.create_task(world.rollout.run(world.stop, world.leave))
        await world.hub.until(lambda: world.hub.heartbeats)
        await world.publish(V0)
        with pytest.raises(EngineDiedError, match="out of memory"):
            await asyncio.wait_for(task, 20)
        await world.publisher.close()
        await world.hub.close()

    asyncio.run(scenario())
