"""The three schedules on one machine: who waits for whom, and what lag comes of it."""

from __future__ import annotations

import pytest

from buffer.config import BufferConfig
from buffer.machine import Machine
from buffer.rounds import Rounds
from buffer.simulation import World, scripted_group, scripted_manifest
from buffer.states import State
from protocol.config import ScheduleConfig, ScheduleMode
from protocol.errors import RefusedError
from protocol.messages import Batch, Phase, WeightManifest
from protocol.version import PolicyVersion

B = 3
STEPS = 12


def v(step: int, incarnation: int = 1) -> PolicyVersion:
    return PolicyVersion(incarnation, step)


def schedule(mode: str, *, every: int = 1, staleness: int = 0, steps: int = STEPS) -> ScheduleConfig:
    return ScheduleConfig(mode=ScheduleMode(mode), broadcast_every=every, max_staleness=staleness, steps=steps)


def world(plan: ScheduleConfig, *, actors: int, seed: int, failure_rate: float = 0.0) -> World:
    machine = Machine(BufferConfig(max_attempts=1000), plan, B, num_prompts=10, seed=7)
    return World(machine, plan, num_actors=actors, seed=seed, failure_rate=failure_rate)


def content(batches: list[Batch]) -> list[tuple[object, ...]]:
    """Everything in the batches that training can see, bit for bit."""
    return [
        (
            batch.batch_id,
            batch.lags,
            [
                (x.entry_id, x.token_ids.tobytes(), x.generator_logprobs.tobytes(), x.rewards.tobytes(), x.versions())
                for x in batch.groups
            ],
            (batch.groups_filtered, batch.generated_tokens, batch.reward_mean),
        )
        for batch in batches
    ]


@pytest.mark.parametrize("seed", range(8))
def test_async_without_staleness_equals_sync_bit_for_bit(seed: int) -> None:
    reference = world(schedule("sync"), actors=1, seed=100).run()
    other = world(schedule("async"), actors=1 + seed % 3, seed=seed).run()
    assert len(reference) == STEPS
    assert content(other) == content(reference)


def test_failed_groups_do_not_change_the_batches_of_sync() -> None:
    reference = world(schedule("sync"), actors=1, seed=1).run()
    other = world(schedule("sync"), actors=2, seed=2, failure_rate=0.3).run()
    assert content(other) == content(reference)


def test_alternate_of_one_batch_a_round_equals_sync() -> None:
    reference = world(schedule("sync"), actors=1, seed=1).run()
    other = world(schedule("alternate"), actors=2, seed=2).run()
    assert content(other) == content(reference)


@pytest.mark.parametrize("every", [2, 4, 5])
def test_alternate_has_the_lags_of_a_round_in_order(every: int) -> None:
    batches = world(schedule("alternate", every=every, staleness=every - 1), actors=2, seed=3).run()
    # Weights of step 0, H, 2H, ... generate, so the batch for step s has lag s mod H.
    assert [batch.lags for batch in batches] == [[step % every] * B for step in range(STEPS)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("every", [2, 4, 5])
def test_alternate_with_a_bound_of_two_rounds_carries_over_and_discards_little(every: int, seed: int) -> None:
    small = world(schedule("alternate", every=every, staleness=2 * every - 1, steps=40), actors=2, seed=seed)
    batches = small.run()
    assert every <= max(lag for batch in batches for lag in batch.lags) < 2 * every
    # Groups end in any order here; the one or other is overtaken for more than a round.
    assert small.machine.events["groups_requeued_stale"] <= 0.02 * len(batches) * B


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lag", [0, 1, 3, 8])
def test_held_staleness_trains_every_batch_at_the_bound(lag: int, seed: int) -> None:
    plan = schedule("async", staleness=lag).model_copy(update={"hold_staleness": True})
    batches = world(plan, actors=2, seed=seed, failure_rate=0.1).run()
    # The weights of step 0 generate the first batches; from then on each is as old as the bound allows.
    assert [batch.lags for batch in batches] == [[min(step, lag)] * B for step in range(STEPS)]


def test_held_staleness_lets_no_batch_be_pulled_ahead() -> None:
    plan = schedule("async", staleness=1).model_copy(update={"hold_staleness": True})
    machine = start(plan)
    assert generate(machine, 100, v(0)) == 2 * B
    batch = machine.learner.pull(v(0))
    for step in range(1, 5):
        # The learner asks for the next batch while it trains on this one.
        assert refusal(machine, v(step)) == "empty"
        machine.learner.commit(batch.batch_id, v(step))
        machine.learner.publish(scripted_manifest(v(step)))
        assert refusal(machine, v(step)) == "empty"
        assert generate(machine, 100, v(step)) == B
        batch = machine.learner.pull(v(step))
        assert batch.lags == [1] * B


def test_held_staleness_ends_with_the_epochs() -> None:
    plan = schedule("async", staleness=3).model_copy(update={"hold_staleness": True})
    machine = Machine(BufferConfig(epochs=1), plan, B, num_prompts=5, seed=7)
    machine.learner.publish(scripted_manifest(v(0)))
    for item in machine.actors.lease("a", 5, v(0), 0.0):
        machine.actors.submit(item.lease_id, scripted_group(item.entry_id, [v(0)], signal=True))
    assert len(machine.learner.pull(v(0)).groups) == B


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("every", "staleness"), [(1, 1), (1, 3), (2, 2), (4, 3)])
def test_async_keeps_the_bound_and_uses_it(every: int, staleness: int, seed: int) -> None:
    batches = world(schedule("async", every=every, staleness=staleness, steps=40), actors=3, seed=seed).run()
    lags = [lag for batch in batches for lag in batch.lags]
    assert max(lags) <= staleness
    assert max(lags) > 0


def start(plan: ScheduleConfig) -> Machine:
    machine = Machine(BufferConfig(filter_zero_signal=False), plan, B, num_prompts=100)
    machine.learner.publish(scripted_manifest(v(0)))
    machine.take_pushes()
    return machine


def generate(machine: Machine, count: int, version: PolicyVersion) -> int:
    items = machine.actors.lease("a", count, version, 0.0)
    for item in items:
        machine.actors.submit(item.lease_id, scripted_group(item.entry_id, [version]))
    return len(items)


def refusal(machine: Machine, version: PolicyVersion) -> str:
    with pytest.raises(RefusedError) as caught:
        machine.learner.pull(version)
    return caught.value.code


def step(machine: Machine, version: PolicyVersion) -> None:
    batch = machine.learner.pull(version)
    machine.learner.commit(batch.batch_id, v(version.step + 1, version.incarnation))


def test_alternate_pull_waits_for_the_whole_round_and_tells_the_actors_to_sleep() -> None:
    machine = start(schedule("alternate", every=2, staleness=1))
    assert generate(machine, 5, v(0)) == 5
    assert refusal(machine, v(0)) == "empty"
    assert machine.take_pushes() == []
    assert generate(machine, 5, v(0)) == 1
    assert [push.message for push in machine.take_pushes()] == [Phase(generating=False)]
    step(machine, v(0))
    step(machine, v(1))
    assert generate(machine, 5, v(0)) == 0
    machine.learner.publish(scripted_manifest(v(2)))
    kinds = [push.message for push in machine.take_pushes()]
    assert isinstance(kinds[0], WeightManifest)
    assert kinds[1:] == [Phase(generating=True)]
    assert generate(machine, 9, v(2)) == 6


def test_alternate_generates_no_more_than_a_round_whatever_the_bound() -> None:
    machine = start(schedule("alternate", every=2, staleness=9))
    assert generate(machine, 100, v(0)) == 2 * B


def test_alternate_prefetch_does_not_run_into_the_next_round() -> None:
    machine = start(schedule("alternate", every=2, staleness=1))
    generate(machine, 6, v(0))
    machine.learner.pull(v(0))
    machine.learner.pull(v(1))
    assert refusal(machine, v(2)) == "empty"


def test_round_that_served_all_its_batches_gives_no_more_whatever_is_buffered() -> None:
    rounds = Rounds(schedule("alternate", every=2, staleness=1), B)
    rounds.update(buffered=3 * B, possible=100)
    assert rounds.may_pull
    rounds.served(2)
    assert not rounds.may_pull


def test_alternate_wakes_the_actors_when_a_round_loses_groups() -> None:
    machine = start(schedule("alternate", every=2, staleness=1))
    generate(machine, 6, v(0))
    step(machine, v(0))
    machine.take_pushes()
    # The learner dies and resumes at step 0: its three trained prompts are ready again, three groups are left.
    machine.learner.publish(scripted_manifest(v(0, incarnation=2)))
    assert [push.message for push in machine.take_pushes()][1:] == [Phase(generating=True)]
    assert machine.ledger.counts[State.BUFFERED] == 3
    assert generate(machine, 9, v(0, incarnation=2)) == 3
    assert machine.take_pushes()[0].message == Phase(generating=False)


def test_a_learner_that_resumes_and_pulls_before_its_weights_are_announced_gets_its_round() -> None:
    machine = start(schedule("alternate", every=2, staleness=1))
    generate(machine, 6, v(0))
    machine.learner.pull(v(0))
    # It dies; its successor of step 0 pulls what is buffered, and then its weights are announced.
    batch = machine.learner.pull(v(0, incarnation=2))
    machine.learner.publish(scripted_manifest(v(0, incarnation=2)))
    machine.learner.commit(batch.batch_id, v(1, incarnation=2))
    step(machine, v(1, incarnation=2))
    machine.learner.publish(scripted_manifest(v(2, incarnation=2)))
    assert generate(machine, 9, v(2, incarnation=2)) == 6


def test_last_round_is_as_short_as_the_run_allows() -> None:
    machine = start(schedule("alternate", every=4, staleness=3, steps=2))
    assert generate(machine, 100, v(0)) == 2 * B
    step(machine, v(0))
    step(machine, v(1))
    assert machine.draining


def test_nothing_is_generated_that_the_run_cannot_train_on() -> None:
    machine = start(schedule("async", staleness=5, steps=2))
    assert generate(machine, 100, v(0)) == 2 * B
