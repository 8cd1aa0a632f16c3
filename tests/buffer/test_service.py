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
from protocol.config import ScheduleConfig, ScheduleMode
from protocol.errors import AddressError, RefusedError
from protocol.messages import (
    Commit,
    Drain,
    Fetch,
    Heartbeat,
    Hello,
    Inspect,
    Lease,
    LedgerState,
    Note,
    Phase,
    Records,
    Return,
    Settle,
    Snapshot,
    WeightManifest,
)
from telemetry.config import TelemetryConfig
from telemetry.exporter import Exporter
from tests.buffer.hub_kit import PROMPTS, B, Clock, Peer, make_hub, run, serving, v
from tests.telemetry.fakes import make_record
from tests.telemetry.scrape import scrape, value


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
            pushed = [actor.pushed.get_nowait() for _ in range(actor.pushed.qsize())]
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


def test_silent_actor_loses_its_leases_and_may_come_back() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "a", "actor") as silent, Peer(hub, "b", "actor") as other:
            (item,) = await silent.lease(1, v(0))
            clock.now += 15
            await other.ask(Heartbeat(name="b", version=v(0)))
            clock.now += 10
            hub.tick(clock.now)
            assert [client.name for client in (await other.status()).clients] == ["b"]
            assert item.entry_id in [x.entry_id for x in await other.lease(9, v(0))]
            with pytest.raises(RefusedError, match="unknown_lease"):
                await silent.submit([item], v(0))
            await silent.ask(Heartbeat(name="a", version=v(0)))
            assert {client.name for client in (await other.status()).clients} == {"a", "b"}

    run(scenario)


def test_silent_actor_still_gets_the_weights_that_it_waits_for() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "a", "actor") as busy, Peer(hub, "l", "learner") as learner:
            clock.now += 100
            hub.tick(clock.now)
            await learner.ask(scripted_manifest(v(0)))
            assert isinstance(await busy.pushed.get(), WeightManifest)

    run(scenario)


def test_actor_that_heard_nothing_of_the_newest_weights_is_told_again() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "l", "learner") as learner:
            async with Peer(hub, "a", "actor") as lost:
                items = await lost.lease(2, v(0))
            await learner.ask(scripted_manifest(v(0, incarnation=2)))
            # The same process over another connection, as after a broken cable: it does not know that pushes were lost.
            async with Peer(hub, "o", "observer") as again:
                clock.now += 31
                await again.ask(Heartbeat(name="a"))
                assert isinstance(await again.pushed.get(), WeightManifest)
                await again.submit(items, v(0))

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


def test_new_process_of_the_same_name_voids_the_leases_of_the_old_one() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "a", "actor", pid=1) as old:
            items = await old.lease(2, v(0))
            async with Peer(hub, "a", "actor", pid=1):
                assert hub.machine.num_leases("a") == 2, "the same process, over another connection"
            async with Peer(hub, "a", "actor", pid=2) as new:
                assert [x.entry_id for x in await new.lease(2, v(0))] == [x.entry_id for x in items]

    run(scenario)


def test_new_learner_gets_back_what_the_old_one_had_pulled() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner", pid=1) as old:
            await actor.submit(await actor.lease(9, v(0)), v(0))
            pulled = await old.pull(v(0))
            async with Peer(hub, "l", "learner", pid=2) as new:
                await new.ask(scripted_manifest(v(0, incarnation=2)))
                again = await new.pull(v(0, incarnation=2))
                assert [x.entry_id for x in again.groups] == [x.entry_id for x in pulled.groups]
                with pytest.raises(RefusedError, match="unknown_batch"):
                    await old.ask(Commit(batch_id=pulled.batch_id, version=v(1)))

    run(scenario)


def test_client_that_did_not_say_hello_is_told_to() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "o", "observer") as peer:
            for message in (Lease(name="x", max_groups=1, version=v(0)), Heartbeat(name="x")):
                with pytest.raises(RefusedError, match="unknown_client"):
                    await peer.ask(message)
            with pytest.raises(RefusedError, match="protocol: x speaks protocol 99"):
                await peer.ask(Hello(role="actor", name="x", protocol=99))
            with pytest.raises(RefusedError, match="unexpected: the hub does not answer Fetch"):
                await peer.ask(Fetch(version=v(0), offset=0, size=1))

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


def test_late_actor_is_told_weights_and_phase() -> None:
    async def scenario() -> None:
        plan = ScheduleConfig(mode=ScheduleMode.ALTERNATE, broadcast_every=1, max_staleness=0)
        hub = make_hub(schedule=plan)
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            await learner.ask(scripted_manifest(v(0)))
            await actor.submit(await actor.lease(9, v(0)), v(0))
            async with Peer(hub, "b", "actor") as late:
                assert isinstance(await late.pushed.get(), WeightManifest)
                assert await late.pushed.get() == Phase(generating=False)
            assert await actor.pushed.get() == Phase(generating=True)
            assert isinstance(await actor.pushed.get(), WeightManifest)
            assert await actor.pushed.get() == Phase(generating=False)

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


def test_status_tells_states_lags_events_and_clients() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            items = await actor.lease(9, v(0))
            await actor.submit(items[:1], v(0))
            await actor.ask(Heartbeat(name="a", version=v(0), waiting_for="room", metrics={"x": 1.5}))
            clock.now += 3
            status = await learner.status()
            assert (status.ledger["leased"], status.ledger["buffered"], status.lags) == (1, 1, {"0": 1})
            assert status.events["groups_submitted"] == 1
            client = next(x for x in status.clients if x.name == "a")
            assert (client.num_leases, client.seen_s, client.waiting_for) == (1, 3.0, "room")

    run(scenario)


def test_what_happened_at_the_hub_stands_in_its_metrics() -> None:
    async def scenario() -> None:
        exporter = Exporter("hub", TelemetryConfig())
        clock = Clock()
        hub = make_hub(clock=clock, exporter=exporter)
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            await actor.submit(await actor.lease(9, v(0)), v(0))
            await learner.pull(v(0))
            hub.tick(clock.now)
            samples = await asyncio.to_thread(scrape, exporter)
        exporter.close()
        assert value(samples, "rapid_hub_ledger_entries", state="pulled") == B
        assert value(samples, "rapid_hub_connected_clients", role="actor") == 1
        assert value(samples, "rapid_hub_granted_leases_total") == B
        assert value(samples, "rapid_hub_submitted_groups_total") == B
        assert value(samples, "rapid_hub_batch_wait_seconds_count") == 1

    run(scenario)


def test_taken_port_is_one_clear_error() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub):
            with pytest.raises(AddressError, match="Choose a free port"):
                Hub(BufferConfig(), ScheduleConfig(), B, PROMPTS, 0, hub.address)

    run(scenario)


def test_status_says_where_metrics_are_served() -> None:
    async def scenario() -> None:
        exporter = Exporter("hub", TelemetryConfig())
        hub = make_hub(exporter=exporter)
        try:
            async with serving(hub), Peer(hub, "a", "actor") as actor:
                await actor.ask(Hello(role="actor", name="a", pid=1, metrics_address="10.0.0.3:8"))
                status = await actor.status()
            assert status.metrics_address == exporter.address
            assert [x.metrics_address for x in status.clients] == ["10.0.0.3:8"]
        finally:
            exporter.close()

    run(scenario)


def test_the_successor_of_an_actor_that_fell_silent_is_known_as_itself() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "a", "actor") as first:
            await first.ask(Heartbeat(name="a", version=v(0)))
            clock.now += 30
            hub.tick(clock.now)
            async with Peer(hub, "a", "actor", pid=2) as second:
                (client,) = (await second.status()).clients
                assert client.version is None
                items = await second.lease(1, v(0))
                await second.ask(Hello(role="actor", name="a", pid=2))  # after a reconnect
                await second.submit(items, v(0))


# --- what those who watch are told -----------------------------------------------------------------------


def test_status_says_since_when_a_client_waits_and_where_it_is() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "a", "actor") as actor:
            for waiting_for, seconds in (("a lease", 5), ("a lease", 2), ("weights", 3)):
                await actor.ask(Heartbeat(name="a", waiting_for=waiting_for))
                clock.now += seconds
            status = await actor.status()
            assert [(client.waiting_for, client.since_s) for client in status.clients] == [("weights", 3)]
            await actor.ask(Heartbeat(name="a", waiting_for="a lease"))
            clock.now += 1
            await actor.ask(Heartbeat(name="a", waiting_for="a lease"))
            clock.now += 1
            assert (await actor.status()).clients[0].since_s == 2

    run(scenario)


def test_status_says_what_the_run_is_and_how_long_nothing_has_moved(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock, run_dir=tmp_path / "trial", model="tiny")
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            await learner.ask(scripted_manifest(v(0)))
            clock.now += 7
            assert (await actor.status()).since_commit_s is None
            await actor.submit(await actor.lease(9, v(0)), v(0))
            batch = await learner.pull(v(0))
            await learner.ask(Commit(batch_id=batch.batch_id, version=v(1)))
            clock.now += 4
            status = await actor.status()
            assert status.run is not None
            assert (status.run.name, status.run.model, status.run.mode) == ("trial", "tiny", "async")
            assert (status.run.total_steps, status.run.max_staleness, status.run.batch_groups) == (50, 0, B)
            assert (status.uptime_s, status.idle_s, status.since_commit_s) == (11, 4, 4)

    run(scenario)


def test_the_log_tells_who_came_what_failed_and_what_the_launcher_says() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "a", "actor") as actor, Peer(hub, "l", "learner") as learner:
            await learner.ask(scripted_manifest(v(0)))
            (item,) = await actor.lease(1, v(0))
            await actor.ask(Return(lease_id=item.lease_id, failed=True, reason="it hung"))
            await learner.ask(Note(text="actor-1 ended (its process died)"))
            async with Peer(hub, "a", "actor", pid=2), Peer(hub, "o", "observer"):
                pass
            clock.now += 25
            await learner.ask(Heartbeat(name="l"))
            hub.tick(clock.now)
            await hub.drain("the run ends")
            assert [(line.text, line.is_warning) for line in (await learner.status()).log] == [
                ("a joined", False),
                ("l joined", False),
                (f"groups failed and are tried again: 1 (last {item.entry_id}: it hung)", True),
                ("actor-1 ended (its process died)", True),
                ("a joined, in the place of a process that is gone", False),
                ("a is silent for 25 s: its leases return", True),
                ("no more leases are given: the run ends", False),
            ]

    run(scenario)


def test_records_reach_who_asks_for_them_and_nobody_else() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "l", "learner") as learner:
            await learner.ask(Records(records=[make_record(1), make_record(2)]))
            status = await learner.status()
            assert (status.records, status.num_records) == ([], 2)
            status = await learner.ask(Inspect(records_after=1))
            assert [record["step"] for record in status.records] == [2]
            with pytest.raises(RefusedError, match="bad_record"):
                await learner.ask(Records(records=[{"step": 3}]))

    run(scenario)
