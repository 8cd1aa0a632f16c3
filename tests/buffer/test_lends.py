"""Leases that come together, as many as the learner needs: of actors that lend their cores, or take turns with it."""

from __future__ import annotations

from buffer.config import BufferConfig
from buffer.machine import Machine
from buffer.simulation import scripted_manifest
from buffer.states import State
from protocol.config import ScheduleConfig
from protocol.version import PolicyVersion
from tests.buffer.test_machine import B, lease, start, submit, train, v


def ask(machine: Machine, *, lends: bool, version: PolicyVersion | None = None) -> int:
    """How many groups an actor is granted that has room for many."""
    return len(machine.actors.lease("a", 99, version or v(0), 0.0, lends))


def provide(machine: Machine, step: int = 0) -> None:
    """Let the learner train on one batch and have another: version `step + 1` is out."""
    for item in lease(machine, 2 * B, v(step)):
        submit(machine, item, v(step))
    batch = machine.learner.pull(v(step))
    machine.learner.pull(v(step + 1))
    machine.learner.commit(batch.batch_id, v(step + 1))
    machine.learner.publish(scripted_manifest(v(step + 1)))


def test_actor_that_lends_its_cores_gets_what_the_learner_needs_next_and_no_more() -> None:
    lending, other = start(staleness=3), start(staleness=3)
    provide(lending)
    provide(other)
    assert ask(other, lends=False, version=v(1)) == 3 * B
    assert ask(lending, lends=True, version=v(1)) == B
    assert ask(lending, lends=True, version=v(1)) == 0  # what is under way will do


def test_actor_that_lends_its_cores_makes_up_beforehand_for_what_is_filtered() -> None:
    machine = start(staleness=3, prompts=200)
    for step in range(20):
        for item in lease(machine, B, v(step)):
            submit(machine, item, v(step), signal=False)
        train(machine, step)
    provide(machine, 20)
    assert ask(machine, lends=True, version=v(21)) == 2 * B  # half were filtered


def test_actor_that_lends_its_cores_does_not_begin_with_weights_that_are_being_replaced() -> None:
    machine = start(staleness=3)
    provide(machine)
    assert ask(machine, lends=True, version=v(0)) == 0
    assert ask(machine, lends=False, version=v(0)) == 2 * B


def test_actor_that_lends_its_cores_gets_two_batches_when_the_learner_would_wait() -> None:
    machine = start(staleness=3)
    assert ask(machine, lends=True) == 2 * B
    machine = start(staleness=3)
    train(machine, 0)
    assert ask(machine, lends=True, version=v(0)) == 2 * B  # even with weights that are being replaced


def test_actor_that_lends_its_cores_fills_the_buffer_where_the_learner_waits_for_that() -> None:
    config = BufferConfig(shuffle=False)
    for plan in (
        ScheduleConfig(max_staleness=3, steps=50, hold_staleness=True),
        ScheduleConfig(mode="alternate", broadcast_every=4, steps=50),
    ):
        machine = Machine(config, plan, B, 20)
        machine.learner.publish(scripted_manifest(v(0)))
        for item in lease(machine, 2 * B):
            submit(machine, item)
        assert ask(machine, lends=True) == 2 * B


def in_turns(staleness: int) -> Machine:
    """A learner that has done a round of two batches, half of the groups for which were filtered."""
    plan = ScheduleConfig(mode="alternate", broadcast_every=2, max_staleness=staleness, steps=50)
    machine = Machine(BufferConfig(shuffle=False), plan, B, 200)
    machine.learner.publish(scripted_manifest(v(0)))
    for step in range(0, 20, 2):
        for signal in (False, True):
            for item in lease(machine, 2 * B, v(step)):
                submit(machine, item, v(step), signal=signal)
        for each in (step, step + 1):
            machine.learner.commit(machine.learner.pull(v(each)).batch_id, v(each + 1))
        machine.learner.publish(scripted_manifest(v(step + 2)))
    return machine


def test_a_round_makes_up_beforehand_for_what_is_filtered_if_the_next_may_train_on_the_rest() -> None:
    assert ask(in_turns(staleness=3), lends=False, version=v(20)) == 4 * B
    assert ask(in_turns(staleness=2), lends=False, version=v(20)) == 3 * B
    assert ask(in_turns(staleness=1), lends=False, version=v(20)) == 2 * B


def test_what_is_under_way_when_a_round_is_complete_is_of_the_next_one() -> None:
    machine = in_turns(staleness=3)
    items = lease(machine, 99, v(20))
    for item in items[: 2 * B]:
        submit(machine, item, v(20))
    assert ask(machine, lends=False, version=v(20)) == 0, "the learner has its turn"
    for step in (20, 21):
        machine.learner.commit(machine.learner.pull(v(step)).batch_id, v(step + 1))
    machine.learner.publish(scripted_manifest(v(22)))
    rest = items[2 * B :]
    for item in rest[:3]:
        submit(machine, item, v(20), signal=False)
    assert ask(machine, lends=False, version=v(20)) == 0, "weights that are being replaced"
    assert ask(machine, lends=False, version=v(22)) == 4 * B - 1, "the rest of the last round counts"
    submit(machine, rest[3], v(20), v(22))
    assert machine.ledger.counts[State.BUFFERED] == 1, "a token of the old weights is within the bound"
