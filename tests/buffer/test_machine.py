"""Single events of the machine: what they change, what they refuse, and what a repetition does."""

from __future__ import annotations

import json

import pytest

from buffer.config import BufferConfig, StalePolicy
from buffer.errors import LedgerError
from buffer.machine import Machine
from buffer.simulation import scripted_group, scripted_manifest
from buffer.states import Event, State
from protocol.config import ScheduleConfig
from protocol.errors import RefusedError
from protocol.messages import Drain, WeightManifest, WorkItem
from protocol.version import PolicyVersion

B = 2


def v(step: int, incarnation: int = 1) -> PolicyVersion:
    return PolicyVersion(incarnation, step)


def start(
    config: BufferConfig | None = None, *, staleness: int = 1, prompts: int = 20, steps: int = 50, state: object = None
) -> Machine:
    config = config or BufferConfig(shuffle=False, max_attempts=2, lease_s=10)
    plan = ScheduleConfig(max_staleness=staleness, steps=steps)
    machine = Machine(config, plan, B, prompts, state=state)  # type: ignore[arg-type]
    if state is None:
        machine.learner.publish(scripted_manifest(v(0)))
    machine.take_pushes()
    return machine


def lease(machine: Machine, count: int = 1, version: PolicyVersion | None = None, actor: str = "a") -> list[WorkItem]:
    return machine.actors.lease(actor, count, version or v(0), 0.0)


def submit(machine: Machine, item: WorkItem, *versions: PolicyVersion, signal: bool = True) -> None:
    machine.actors.submit(item.lease_id, scripted_group(item.entry_id, versions or [v(0)], signal=signal))


def fill(machine: Machine, version: PolicyVersion | None = None) -> None:
    for item in lease(machine, B, version):
        submit(machine, item, version or v(0))


def train(machine: Machine, step: int, incarnation: int = 1, *, publish: bool = True) -> None:
    fill(machine, v(step, incarnation))
    batch = machine.learner.pull(v(step, incarnation))
    machine.learner.commit(batch.batch_id, v(step + 1, incarnation))
    if publish:
        machine.learner.publish(scripted_manifest(v(step + 1, incarnation)))


def state_of(machine: Machine, order: int) -> State:
    return machine.ledger.state(order)


def test_lease_names_epoch_prompt_and_attempt() -> None:
    machine = start()
    (item,) = lease(machine)
    assert (item.entry_id, item.epoch, item.index, item.attempt) == ("0:0", 0, 0, 0)
    machine.actors.give_back(item.lease_id, False, "drained")
    (again,) = lease(machine)
    assert (again.entry_id, again.attempt) == ("0:0", 1)
    assert again.lease_id != item.lease_id


def test_leases_stop_at_the_capacity_and_go_on_when_a_group_is_filtered() -> None:
    machine = start()
    items = lease(machine, 100)
    assert len(items) == 2 * B
    assert lease(machine) == []
    submit(machine, items[0], signal=False)
    assert state_of(machine, 0) is State.FILTERED
    assert len(lease(machine, 100)) == 1


def test_old_weights_get_fewer_leases_and_new_ones_the_rest() -> None:
    machine = start()
    train(machine, 0)
    assert len(lease(machine, 100, v(0))) == B
    assert len(lease(machine, 100, v(1))) == B


def test_actor_that_leaves_keeps_no_share_of_the_leases_from_those_that_stay() -> None:
    machine = start()
    # Room for four: two for each.
    lease(machine, 1, actor="a")
    assert len(lease(machine, 9, actor="b")) == 2
    assert lease(machine, 9, actor="b") == []
    machine.actors.leaving("a")
    assert len(lease(machine, 9, actor="b")) == 1, "all but the one that the leaving actor still holds"


def test_lease_with_weights_that_nobody_published_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"unknown_version: version 1\.1 is not known"):
        lease(start(), 1, v(1))


def test_unfiltered_machine_keeps_groups_without_signal() -> None:
    machine = start(BufferConfig(filter_zero_signal=False))
    (item,) = lease(machine)
    submit(machine, item, signal=False)
    assert machine.ledger.counts[State.BUFFERED] == 1


def test_repeated_submit_is_acknowledged_and_changes_nothing() -> None:
    machine = start()
    (item,) = lease(machine)
    submit(machine, item)
    machine.take_transitions()
    submit(machine, item)
    assert machine.take_transitions() == []


def test_group_of_another_entry_is_refused_and_the_lease_lives() -> None:
    machine = start()
    (item,) = lease(machine)
    with pytest.raises(RefusedError, match="wrong_entry"):
        machine.actors.submit(item.lease_id, scripted_group("0:9", [v(0)]))
    submit(machine, item)


def test_expired_lease_is_void_and_its_prompt_goes_to_somebody_else() -> None:
    machine = start()
    first, second = lease(machine, 2)
    machine.actors.renew("a", [second.lease_id], 5.0)
    machine.actors.expire(10.0)
    with pytest.raises(RefusedError, match="unknown_lease"):
        submit(machine, first)
    assert lease(machine, 1, actor="b")[0].entry_id == first.entry_id
    submit(machine, second)


def test_dead_actor_costs_nothing_but_its_leases() -> None:
    machine = start()
    items = lease(machine, 2)
    submit(machine, items[0])
    machine.actors.gone("a")
    assert [state_of(machine, order) for order in (0, 1)] == [State.BUFFERED, State.READY]
    assert machine.ledger.entry(1).failures == 0


def test_failures_lead_to_a_dead_letter_with_the_last_reason() -> None:
    machine = start()
    for reason in ("first", "second"):
        (item,) = lease(machine)
        machine.actors.give_back(item.lease_id, True, reason)
    assert state_of(machine, 0) is State.DEAD_LETTER
    assert machine.ledger.dead_letters[0].reason == "second"


@pytest.mark.parametrize(("policy", "after"), [("requeue", State.READY), ("drop", State.DROPPED)])
def test_group_too_stale_on_arrival_never_reaches_the_buffer(policy: str, after: State) -> None:
    machine = start(BufferConfig(shuffle=False, stale_policy=StalePolicy(policy)), staleness=1)
    (slow,) = lease(machine)
    train(machine, 0)
    train(machine, 1)
    machine.take_transitions()
    # Begun by version 0, finished by version 2: the oldest token counts, lag 2 of at most 1.
    submit(machine, slow, v(0), v(2))
    assert [x.event for x in machine.take_transitions()] == [Event.STALE if policy == "requeue" else Event.DROP]
    assert state_of(machine, 0) is after


@pytest.mark.parametrize(("policy", "after"), [("requeue", State.READY), ("drop", State.DROPPED)])
def test_buffered_group_that_becomes_stale_is_evicted_at_once(policy: str, after: State) -> None:
    machine = start(BufferConfig(shuffle=False, stale_policy=StalePolicy(policy)), staleness=1)
    for step in range(3):
        train(machine, step)
    (item,) = lease(machine, 1, v(3))
    submit(machine, item, v(3))
    # The learner resumes at step 1: from (1, 3) back to the branch point are two steps, one is allowed.
    machine.learner.publish(scripted_manifest(v(1, incarnation=2)))
    assert state_of(machine, 6) is after
    assert machine.lags() == {}


def test_versions_of_all_tokens_decide_the_lag() -> None:
    machine = start(staleness=2)
    slow = lease(machine, 1)[0]
    train(machine, 0)
    submit(machine, slow, v(0), v(1))
    fill(machine, v(1))
    assert machine.lags() == {1: 1, 0: 2}
    assert machine.learner.pull(v(1)).lags == [1, 0]


def test_batch_tells_what_happened_since_the_one_before() -> None:
    machine = start(staleness=5)
    items = lease(machine, 4)
    submit(machine, items[0], signal=False)
    for item in items[1:]:
        submit(machine, item)
    batch = machine.learner.pull(v(0))
    # Four groups of two completions of two tokens; rewards [0, 0] once and [1, 0] three times: 3 / 8.
    assert (batch.groups_filtered, batch.generated_tokens, batch.reward_mean) == (1, 16, 0.375)
    submit(machine, lease(machine)[0])
    following = machine.learner.pull(v(1))
    assert (following.groups_filtered, following.generated_tokens, following.reward_mean) == (0, 4, 0.5)


def test_pull_is_answered_twice_with_the_same_batch_and_ahead_of_the_commit() -> None:
    machine = start()
    fill(machine)
    fill(machine)
    batch, ahead = machine.learner.pull(v(0)), machine.learner.pull(v(1))
    assert machine.learner.pull(v(0)) is batch
    assert ahead.lags == [1, 1]
    with pytest.raises(RefusedError, match="wrong_version"):
        machine.learner.pull(v(5))


def test_commit_is_idempotent_in_order_and_of_the_right_version() -> None:
    machine = start()
    fill(machine)
    fill(machine)
    first, second = machine.learner.pull(v(0)), machine.learner.pull(v(1))
    with pytest.raises(RefusedError, match="unknown_batch"):
        machine.learner.commit(second.batch_id, v(2))
    with pytest.raises(RefusedError, match=r"wrong_version: .* leads to 1\.1, got 1\.2"):
        machine.learner.commit(first.batch_id, v(2))
    machine.learner.commit(first.batch_id, v(1))
    machine.learner.commit(first.batch_id, v(1))
    assert machine.version == v(1)
    assert machine.ledger.counts[State.TRAINED] == B


def test_weights_that_no_update_can_have_made_are_refused() -> None:
    machine = start()
    with pytest.raises(RefusedError, match="wrong_version"):
        machine.learner.publish(scripted_manifest(v(3)))
    assert machine.manifest is not None
    assert machine.manifest.version == v(0)


def test_learner_that_dies_gives_back_what_it_pulled() -> None:
    machine = start()
    fill(machine)
    batch = machine.learner.pull(v(0))
    machine.learner.gone()
    assert machine.ledger.counts[State.BUFFERED] == B
    assert machine.learner.pull(v(0)).groups == batch.groups


def test_resumed_learner_settles_what_its_checkpoint_holds_and_rewinds_the_rest() -> None:
    machine = start(staleness=3)
    for step in range(3):
        train(machine, step)
    machine.learner.publish(scripted_manifest(v(1, incarnation=2)))
    counts = machine.ledger.counts
    # One batch led to step 1, which the checkpoint holds; two led beyond it.
    assert (counts[State.SETTLED], counts[State.TRAINED], counts[State.READY]) == (B, 0, 2 * B)
    assert machine.version == v(1, incarnation=2)
    assert [item.entry_id for item in lease(machine, B, v(1, 2))] == ["0:2", "0:3"]


def test_actor_with_weights_of_a_lost_branch_is_as_stale_as_the_way_through_the_branch_point() -> None:
    machine = start(staleness=2)
    for step in range(3):
        train(machine, step)
    machine.learner.publish(scripted_manifest(v(1, incarnation=2)))
    # From (1, 3) back to the branch point 1 and on to (2, 1): lag 2 of 2 leaves room for one batch.
    assert len(lease(machine, 100, v(3))) == B


def test_branch_below_a_settled_step_is_refused() -> None:
    machine = start()
    train(machine, 0)
    machine.learner.settle(v(1))
    with pytest.raises(RefusedError, match=r"settled: the learner begins again at 2\.0"):
        machine.learner.pull(v(0, incarnation=2))
    assert machine.version == v(1)


def test_checkpoint_of_the_future_is_refused() -> None:
    with pytest.raises(RefusedError, match="wrong_version"):
        start().learner.settle(v(4))


def test_last_epoch_ends_with_every_prompt_accounted_for() -> None:
    machine = start(BufferConfig(epochs=1, shuffle=False), prompts=5)
    train(machine, 0)
    train(machine, 1)
    (item,) = lease(machine, 1, v(2))
    submit(machine, item, v(2))
    with pytest.raises(RefusedError, match="exhausted"):
        machine.learner.pull(v(2))
    machine.learner.settle(v(2))
    counts = machine.ledger.counts
    assert (counts[State.SETTLED], counts[State.DROPPED]) == (4, 1)
    assert machine.events["groups_dropped_end"] == 1
    assert sum(counts.values()) == machine.ledger.total == 5


def test_prompts_never_begun_end_with_the_last_epoch() -> None:
    machine = start(BufferConfig(epochs=1, shuffle=False), prompts=3, staleness=0)
    train(machine, 0)
    with pytest.raises(RefusedError, match="exhausted"):
        machine.learner.pull(v(1))
    assert machine.ledger.counts[State.DROPPED] == 1


def test_last_step_drains_and_everything_under_way_is_ready_again() -> None:
    machine = start(steps=1, staleness=3)
    fill(machine)
    batch = machine.learner.pull(v(0))
    machine.learner.commit(batch.batch_id, v(1))
    assert [type(push.message) for push in machine.take_pushes()] == [Drain]
    assert lease(machine, 9, v(0)) == []
    with pytest.raises(RefusedError, match="exhausted"):
        machine.learner.pull(v(1))
    machine.learner.settle(v(1))
    assert machine.ledger.counts[State.SETTLED] == B


def test_drain_takes_back_leases_groups_and_batches() -> None:
    machine = start(staleness=5)
    fill(machine)
    machine.learner.pull(v(0))
    items = lease(machine, 2)
    submit(machine, items[0])
    machine.drain("stop")
    assert machine.ledger.counts[State.READY] == machine.ledger.opened == 4
    machine.ledger.check()


def test_actor_is_welcomed_with_the_newest_weights() -> None:
    machine = start()
    train(machine, 0)
    machine.take_pushes()
    machine.actors.welcome("late")
    (push,) = machine.take_pushes()
    assert push.name == "late"
    assert isinstance(push.message, WeightManifest)
    assert push.message.version == v(1)


def test_resumed_hub_goes_on_from_a_checkpoint() -> None:
    machine = start(staleness=5)
    train(machine, 0)
    fill(machine, v(1))
    state = json.loads(json.dumps(machine.snapshot()))
    resumed = start(staleness=5, state=state)
    resumed.learner.publish(scripted_manifest(v(1, incarnation=2)))
    counts = resumed.ledger.counts
    assert (counts[State.SETTLED], counts[State.READY], resumed.ledger.opened) == (B, B, 2 * B)
    assert [item.entry_id for item in lease(resumed, 2, v(1, 2))] == ["0:2", "0:3"]
    assert resumed.events["batches_committed"] == 1


@pytest.mark.parametrize("change", [{"format": 9}, {"version": "new"}, {"ledger": {}}, {"more": 1}])
def test_damaged_state_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(LedgerError):
        start(state={**start().snapshot(), **change})
