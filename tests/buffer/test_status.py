"""What the hub tells those who watch, over real sockets. Time is a number that the tests set."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from buffer.simulation import scripted_manifest
from protocol.errors import RefusedError
from protocol.messages import Commit, Heartbeat, Hello, Records, Return
from protocol.status import Inspect, Note
from telemetry import catalogue
from telemetry.config import TelemetryConfig
from telemetry.exporter import Exporter
from tests.buffer.hub_kit import B, Clock, Peer, make_hub, run, serving, v
from tests.telemetry.fakes import make_record
from tests.telemetry.scrape import scrape, value


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
        assert value(samples, catalogue.HUB_ENTRIES, state="pulled") == B
        assert value(samples, catalogue.HUB_CLIENTS, role="actor") == 1
        assert value(samples, catalogue.HUB_LEASES_GRANTED) == B
        assert value(samples, catalogue.HUB_GROUPS_SUBMITTED) == B
        assert value(samples, catalogue.HUB_BATCH_WAIT, "_count") == 1

    run(scenario)
