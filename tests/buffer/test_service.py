"""The hub over real sockets. Time is a number that the tests set."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from buffer.config import BufferConfig
from buffer.service import Hub
from buffer.simulation import scripted_manifest
from buffer.states import Event, State
from buffer.store import MemoryStore, Transition
from buffer.summary import read_state, summarise
from protocol.config import ScheduleConfig
from protocol.errors import AddressError, RefusedError
from protocol.messages import (
    Commit,
    Drain,
    Heartbeat,
    LedgerState,
    Return,
    Settle,
    Snapshot,
    WeightManifest,
)
from tests.buffer.hub_kit import PROMPTS, B, Clock, Peer, make_hub, run, serving, v


def test_prompts_become_batches_and_the_sum_adds_up_on_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        hub = make_hub(schedule=ScheduleConfig(max_staleness=0, steps=3), run_dir=tmp_path)
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            await learner.ask(scripted_manifest(v(0)))
            for step in range(3):
                await actor.submit(await actor.lease(9, v(step)), v(step))
                batch = await learner.pull(v(step))
                await learner.ask(Commit(batch_id=batch.batch_id, version=v(step + 1)))
                await learner.ask(scripted_manifest(v(step + 1)))
            await learner.ask(Settle(version=v(3)))
            pushed = await actor.pushes()
            assert [x.version for x in pushed if isinstance(x, WeightManifest)] == [v(0), v(1), v(2), v(3)]
            assert any(isinstance(x, Drain) for x in pushed)

    run(scenario)
    summary = summarise(read_state(tmp_path))
    assert summary.adds_up
    assert summary.counts[State.SETTLED] == summary.opened == 6


def test_lease_waits_for_room_and_is_granted_by_the_weights_that_a_heartbeat_reports() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            await learner.ask(scripted_manifest(v(0)))
            await actor.submit(await actor.lease(9, v(0)), v(0))
            waiting = asyncio.create_task(actor.lease(9, v(0), wait_s=60))
            batch = await learner.pull(v(0))
            await learner.ask(Commit(batch_id=batch.batch_id, version=v(1)))
            await learner.ask(scripted_manifest(v(1)))
            # Weights of step 0 are too old now; the request still waits, and newer weights arrive meanwhile.
            assert not waiting.done()
            await actor.ask(Heartbeat(name="a", version=v(1)))
            assert len(await waiting) == B

    run(scenario)


def test_second_lease_request_ends_the_first_so_that_no_grant_is_lost() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "b", "actor") as other:
            items = await other.lease(9, v(0))
            first = asyncio.create_task(actor.lease(9, v(0), wait_s=60))
            await actor.status()
            second = asyncio.create_task(actor.lease(9, v(0), wait_s=60))
            await actor.status()
            await other.ask(Return(lease_id=items[0].lease_id, failed=False))
            assert (await first, len(await second)) == ([], 1)

    run(scenario)


def test_pull_waits_until_the_batch_is_there_or_says_empty() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            with pytest.raises(RefusedError, match="empty"):
                await learner.pull(v(0))
            waiting = asyncio.create_task(learner.pull(v(0), wait_s=60))
            await learner.status()
            await actor.submit(await actor.lease(9, v(0)), v(0))
            assert len((await waiting).groups) == B

    run(scenario)


def test_lease_whose_grant_was_lost_expires_under_a_living_actor() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "a", "actor") as actor:
            known, lost = await actor.lease(2, v(0))
            for _ in range(7):
                clock.now += 10
                await actor.ask(Heartbeat(name="a", leases=[known.lease_id]))
                hub.tick(clock.now)
            assert [x.entry_id for x in await actor.lease(9, v(0))] == [lost.entry_id]
            await actor.submit([known], v(0))

    run(scenario)


class GatedStore(MemoryStore):
    """Fails on demand, and remembers the events in order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.full = False

    def append(self, transitions: Sequence[Transition]) -> None:
        if self.full:
            raise OSError("no space left")
        self.events += [transition.event for transition in transitions]
        super().append(transitions)


def test_transition_is_in_the_store_before_its_acknowledgement_leaves(caplog: pytest.LogCaptureFixture) -> None:
    store = GatedStore()

    async def scenario() -> None:
        hub = make_hub(store=store)
        async with serving(hub), Peer(hub, "a", "actor") as actor:
            (item,) = await actor.lease(1, v(0))
            assert store.events == [Event.LEASE]
            store.full = True
            with pytest.raises(RefusedError, match="internal: OSError: no space left"):
                await actor.submit([item], v(0))
            store.full = False

    run(scenario)


def test_checkpoint_of_the_ledger_travels_and_a_new_hub_goes_on_from_it() -> None:
    states: list[dict[str, Any]] = []

    async def first() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            await actor.submit(await actor.lease(9, v(0)), v(0))
            batch = await learner.pull(v(0))
            await learner.ask(Commit(batch_id=batch.batch_id, version=v(1)))
            state = await learner.ask(Snapshot())
            assert isinstance(state, LedgerState)
            states.append(state.state)

    async def second() -> None:
        hub = make_hub(state=states[0])
        async with serving(hub), Peer(hub, "l", "learner", pid=9) as learner:
            await learner.ask(scripted_manifest(v(1, incarnation=2)))
            status = await learner.status()
            assert (status.version, status.lineage.branch_steps) == (v(1, incarnation=2), (1,))
            assert status.ledger["settled"] == status.opened == B

    run(first)
    run(second)


def test_stop_answers_those_who_wait_and_pushes_drain() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub) as stop, Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            await actor.lease(9, v(0))
            lease = asyncio.create_task(actor.lease(9, v(0), wait_s=60))
            pull = asyncio.create_task(learner.pull(v(0), wait_s=60))
            # A connection keeps its order: once these are answered, both requests have arrived.
            await actor.status()
            await learner.status()
            stop.set()
            assert await lease == []
            with pytest.raises(RefusedError, match="exhausted: the run is being stopped"):
                await pull
            assert isinstance(await actor.pushed.get(), Drain)
            assert hub.machine.ledger.counts[State.READY] == hub.machine.ledger.opened == B

    run(scenario)


def test_taken_port_is_one_clear_error() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub):
            with pytest.raises(AddressError, match="Choose a free port"):
                Hub(BufferConfig(), ScheduleConfig(), B, PROMPTS, 0, hub.address)

    run(scenario)
