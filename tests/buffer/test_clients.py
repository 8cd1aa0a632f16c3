"""Actors and learners that fall silent, come back, and take each other's place, over real sockets."""

from __future__ import annotations

import pytest

from buffer.simulation import scripted_manifest
from protocol.config import ScheduleConfig, ScheduleMode
from protocol.errors import RefusedError
from protocol.messages import Commit, Fetch, Heartbeat, Hello, Lease, Phase, WeightManifest
from tests.buffer.hub_kit import Clock, Peer, make_hub, run, serving, v


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
