"""Random interleavings of all that can happen to the machine, checked against a model that shares no code with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from buffer.config import BufferConfig, Sampler, StalePolicy
from buffer.machine import Machine
from buffer.simulation import scripted_group, scripted_manifest
from buffer.states import State
from buffer.store import MemoryStore
from protocol.config import ScheduleConfig, ScheduleMode
from protocol.errors import RefusedError
from protocol.messages import Batch
from protocol.version import PolicyVersion

B = 2
PROMPTS = 7
STEPS = 12
ACTORS = ("a", "b")


@dataclass
class Grant:
    """A lease in the hands of an actor, perhaps void by now."""

    lease_id: str
    entry_id: str
    versions: list[PolicyVersion]


def node(version: PolicyVersion, step: int, branches: list[int]) -> tuple[int, int]:
    """The set of weights at `step` on the way to `version`: that of the incarnation which trained it."""
    incarnation = version.incarnation
    while incarnation > 1 and step <= branches[incarnation - 2]:
        incarnation -= 1
    return incarnation, step


def distance(one: PolicyVersion, other: PolicyVersion, branches: list[int]) -> int:
    """Optimizer steps between two versions in the tree of all versions, by walking from the root."""
    paths = [[node(version, step, branches) for step in range(version.step + 1)] for version in (one, other)]
    common = sum(x == y for x, y in zip(*paths, strict=False))
    return len(paths[0]) + len(paths[1]) - 2 * common


class Interleavings(RuleBasedStateMachine):
    """Two actors, a learner that prefetches, and a hub; each may die at any moment."""

    @initialize(
        mode=st.sampled_from(list(ScheduleMode)),
        every=st.integers(1, 3),
        slack=st.integers(0, 2),
        epochs=st.sampled_from([None, 2, 4]),
        sampler=st.sampled_from(list(Sampler)),
        policy=st.sampled_from(list(StalePolicy)),
    )
    def begin(
        self,
        mode: ScheduleMode,
        every: int,
        slack: int,
        epochs: int | None,
        sampler: Sampler,
        policy: StalePolicy,
    ) -> None:
        every = 1 if mode is ScheduleMode.SYNC else every
        self.eta = every - 1 + (slack if mode is ScheduleMode.ASYNC else 0)
        self.plan = ScheduleConfig(mode=mode, broadcast_every=every, max_staleness=self.eta, steps=STEPS)
        self.config = BufferConfig(epochs=epochs, sampler=sampler, stale_policy=policy, max_attempts=2, lease_s=10)
        self.log: list[tuple[Any, ...]] = []
        self.served: list[Batch] = []
        self.branches: list[int] = []
        self.version = PolicyVersion(1, 0)
        self.pulled: list[Batch] = []
        self.grants: dict[str, list[Grant]] = {name: [] for name in ACTORS}
        self.void: list[Grant] = []
        self.loaded: dict[str, PolicyVersion | None] = dict.fromkeys(ACTORS)
        self.trained: dict[str, int] = {}
        self.checkpoint: tuple[int, dict[str, Any]] | None = None
        self.now = 0.0
        self.calm = 0
        self.start_hub(None)
        self.publish()

    # --- plumbing -----------------------------------------------------------------------------------

    def start_hub(self, state: dict[str, Any] | None) -> None:
        self.machine = Machine(self.config, self.plan, B, PROMPTS, seed=3, state=state)
        self.log.append(("start", state))
        self.store = MemoryStore()

    def call(self, name: str, *arguments: Any) -> Any:
        """Let an event happen, and write it down so that it can be replayed."""
        self.log.append((name, *arguments))
        self.calm += 1
        try:
            return perform(self.machine, name, arguments)
        finally:
            self.store.append(self.machine.take_transitions())
            self.machine.take_pushes()

    def publish(self) -> None:
        self.call("learner.publish", scripted_manifest(self.version))

    # --- actors -------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(ACTORS))
    def load(self, name: str) -> None:
        assert self.machine.manifest is not None
        version = self.machine.manifest.version
        if self.loaded[name] != version:
            self.loaded[name] = version
            for grant in self.grants[name]:
                grant.versions.append(version)

    @rule(name=st.sampled_from(ACTORS), count=st.integers(1, 6))
    def lease(self, name: str, count: int) -> None:
        if self.loaded[name] is None:
            self.load(name)
        version = self.loaded[name]
        assert version is not None
        items = self.call("actors.lease", name, count, version, self.now)
        lag = 0 if version >= self.version else distance(version, self.version, self.branches)
        assert len(items) <= count
        if items:
            assert self.in_flight() <= (self.eta + 1 - lag) * B
        self.grants[name] += [Grant(item.lease_id, item.entry_id, [version]) for item in items]

    @rule(name=st.sampled_from(ACTORS), pick=st.integers(0, 99), signal=st.booleans(), again=st.booleans())
    def submit(self, name: str, pick: int, signal: bool, again: bool) -> None:
        if not self.grants[name]:
            return
        grant = self.grants[name].pop(pick % len(self.grants[name]))
        group = scripted_group(grant.entry_id, grant.versions, signal=signal)
        self.call("actors.submit", grant.lease_id, group)
        if again:
            counts = dict(self.machine.ledger.counts)
            self.call("actors.submit", grant.lease_id, group)
            assert self.machine.ledger.counts == counts

    @rule(name=st.sampled_from(ACTORS), load=st.sampled_from(["before", "midway", "never"]))
    def work(self, name: str, load: str) -> None:
        """A spell without trouble: what moves a run forward, so that trouble finds something to disturb."""
        if load == "before":
            self.load(name)
        self.lease(name, 6)
        if load == "midway":
            self.load(name)
        while self.grants[name]:
            self.submit(name, 0, signal=True, again=False)

    @rule(name=st.sampled_from(ACTORS), failed=st.booleans())
    def hand_back(self, name: str, failed: bool) -> None:
        if self.grants[name]:
            self.call("actors.give_back", self.grants[name].pop().lease_id, failed, "scripted")

    @rule(name=st.sampled_from(ACTORS))
    def actor_is_to_leave(self, name: str) -> None:
        self.call("actors.leaving", name)

    @rule(name=st.sampled_from(ACTORS))
    def actor_dies(self, name: str) -> None:
        self.call("actors.gone", name)
        self.void += self.grants[name]
        self.grants[name], self.loaded[name] = [], None

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]), alive=st.sampled_from(ACTORS))
    def time_passes(self, seconds: float, alive: str) -> None:
        self.now += seconds
        self.call("actors.renew", alive, None, self.now)
        self.call("actors.expire", self.now)
        self.forget_void()

    def forget_void(self) -> None:
        """What the machine took away is void in the actors' hands, too."""
        for name in ACTORS:
            alive = [grant for grant in self.grants[name] if self.machine._books.leases.find(grant.lease_id)]
            self.void += [grant for grant in self.grants[name] if grant not in alive]
            self.grants[name] = alive

    @precondition(lambda self: self.void)
    @rule()
    def void_group_arrives_late(self) -> None:
        grant = self.void.pop(0)
        counts = dict(self.machine.ledger.counts)
        group = scripted_group(grant.entry_id, grant.versions, signal=True)
        with pytest.raises(RefusedError, match="unknown_lease"):
            self.call("actors.submit", grant.lease_id, group)
        assert self.machine.ledger.counts == counts

    # --- the learner --------------------------------------------------------------------------------

    @rule()
    def pull(self) -> None:
        if len(self.pulled) == 2:
            return
        version = PolicyVersion(self.version.incarnation, self.version.step + len(self.pulled))
        batch = self.try_pull(version)
        if batch is None:
            return
        self.check_batch(batch, version)
        assert self.call("learner.pull", version) is batch
        self.pulled.append(batch)
        self.served.append(batch)

    def try_pull(self, version: PolicyVersion) -> Batch | None:
        try:
            batch: Batch = self.call("learner.pull", version)
        except RefusedError as refusal:
            if refusal.code == "exhausted":
                assert version.step >= STEPS or self.machine.ledger.num_unopened() == 0
                self.forget_void()
            elif refusal.code != "empty":
                raise
            return None
        return batch

    def check_batch(self, batch: Batch, version: PolicyVersion) -> None:
        assert batch.version == version
        assert len({group.entry_id for group in batch.groups}) == len(batch.groups) == B
        for group, lag in zip(batch.groups, batch.lags, strict=True):
            walked = [distance(generated, version, self.branches) for generated in group.versions()]
            assert lag == max(walked)
            assert lag <= self.eta
            assert group.entry_id not in self.trained

    @rule(load=st.sampled_from(["before", "midway"]))
    def train(self, load: str) -> None:
        """Another spell without trouble."""
        for name in ACTORS:
            self.work(name, load)
        self.pull()
        if self.pulled:
            self.commit(again=False)

    @precondition(lambda self: self.pulled)
    @rule(again=st.booleans())
    def commit(self, again: bool) -> None:
        batch = self.pulled.pop(0)
        self.version = PolicyVersion(self.version.incarnation, self.version.step + 1)
        self.call("learner.commit", batch.batch_id, self.version)
        for group in batch.groups:
            assert group.entry_id not in self.trained
            self.trained[group.entry_id] = self.version.step
        if again:
            self.call("learner.commit", batch.batch_id, self.version)
        self.forget_void()
        if self.version.step % self.plan.broadcast_every == 0:
            self.publish()

    @rule(survives=st.booleans())
    def write_checkpoint(self, survives: bool) -> None:
        state = self.machine.snapshot()
        if survives:
            self.checkpoint = (self.version.step, state)
            self.call("learner.settle", self.version)
            assert self.machine.ledger.counts[State.TRAINED] == 0

    @precondition(lambda self: self.calm > 12)
    @rule(first_pull=st.booleans())
    def learner_dies(self, first_pull: bool) -> None:
        step = 0 if self.checkpoint is None else self.checkpoint[0]
        self.call("learner.gone")
        self.resume_at(step)
        if first_pull:
            self.pull()
        self.publish()

    @precondition(lambda self: self.calm > 12)
    @rule()
    def hub_and_learner_die(self) -> None:
        step, state = self.checkpoint or (0, None)
        self.start_hub(state)
        self.resume_at(step)
        self.publish()
        for name in ACTORS:
            self.grants[name], self.loaded[name] = [], None
        self.void.clear()

    def resume_at(self, step: int) -> None:
        self.calm = 0
        self.branches.append(step)
        self.version = PolicyVersion(self.version.incarnation + 1, step)
        self.pulled.clear()
        self.trained = {entry: trained for entry, trained in self.trained.items() if trained <= step}

    @precondition(lambda self: self.version.step > 0)
    @rule()
    def learner_of_the_past_is_refused(self) -> None:
        old = PolicyVersion(self.version.incarnation, self.version.step - 1)
        with pytest.raises(RefusedError, match="wrong_version"):
            self.call("learner.pull", old)
        with pytest.raises(RefusedError, match="unknown_batch"):
            self.call("learner.commit", "0.0/0", self.version)

    # --- what must always hold ----------------------------------------------------------------------

    def in_flight(self) -> int:
        counts = self.machine.ledger.counts
        return counts[State.LEASED] + counts[State.BUFFERED] + counts[State.PULLED]

    @invariant()
    def sums_add_up(self) -> None:
        ledger = self.machine.ledger
        ledger.check()
        assert sum(ledger.counts.values()) == ledger.opened
        assert ledger.counts[State.PULLED] == B * len(self.pulled)
        assert ledger.counts[State.TRAINED] + ledger.counts[State.SETTLED] == len(self.trained)

    @invariant()
    def never_more_in_flight_than_can_be_trained_in_time(self) -> None:
        assert self.in_flight() <= (self.eta + 1) * B

    @invariant()
    def store_knows_every_change(self) -> None:
        for transition in self.store.load():
            assert self.machine.ledger.state(transition.order) is transition.state
            assert (transition.group is not None) == (transition.state in (State.BUFFERED, State.PULLED))

    @invariant()
    def snapshot_restores_to_itself(self) -> None:
        state = self.machine.snapshot()
        again = Machine(self.config, self.plan, B, PROMPTS, seed=3, state=state)
        counts, restored = self.machine.ledger.counts, again.ledger.counts
        assert restored[State.READY] == counts[State.READY] + self.in_flight()
        assert {s: restored[s] for s in State if s in ENDED} == {s: counts[s] for s in State if s in ENDED}

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        # The machine is a function of its events: the same events give the same batches.
        assert replay(self.config, self.plan, self.log) == [content(batch) for batch in self.served], "replay differs"


ENDED = (State.TRAINED, State.SETTLED, State.FILTERED, State.DROPPED, State.DEAD_LETTER)


def perform(machine: Machine, name: str, arguments: tuple[Any, ...]) -> Any:
    side, method = name.split(".")
    return getattr(getattr(machine, side), method)(*arguments)


def replay(config: BufferConfig, plan: ScheduleConfig, log: list[tuple[Any, ...]]) -> list[Any]:
    served: list[Batch] = []
    machine: Machine | None = None
    for name, *arguments in log:
        if name == "start":
            machine = Machine(config, plan, B, PROMPTS, seed=3, state=arguments[0])
            continue
        assert machine is not None
        try:
            answer = perform(machine, name, tuple(arguments))
        except RefusedError:
            continue
        if isinstance(answer, Batch) and not any(answer is batch for batch in served):
            served.append(answer)
    return [content(batch) for batch in served]


def content(batch: Batch) -> tuple[Any, ...]:
    return batch.batch_id, batch.lags, [(group.entry_id, group.versions()) for group in batch.groups]


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=80)
