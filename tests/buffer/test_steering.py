"""Asking for more or fewer actors, and actors that leave, over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from protocol.config import ScheduleConfig
from protocol.errors import RefusedError
from protocol.messages import Goodbye, Heartbeat, Return
from protocol.status import FleetStatus, Scale, ScaleOrder, Supervise
from tests.buffer.hub_kit import B, Clock, Peer, make_hub, run, serving, v

FLEET = FleetStatus(wanted=2, running=2, least=1, most=4)


def test_an_order_reaches_the_launcher_until_the_next_one_replaces_it() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "o", "observer") as peer:
            assert (await peer.ask(Supervise(fleet=FLEET))).order is None
            await peer.ask(Scale(actors=4))
            for _ in range(2):
                status = await peer.ask(Supervise(fleet=FLEET))
                assert (status.order, status.fleet) == (ScaleOrder(number=1, actors=4), FLEET)
            await peer.ask(Scale(actors=None))
            assert (await peer.status()).order == ScaleOrder(number=2, actors=None)

    run(scenario)


@pytest.mark.parametrize(("actors", "said"), [(0, "at least actors.min = 1"), (5, "at most actors.max = 4")])
def test_an_order_out_of_bounds_is_refused_and_forgotten(actors: int, said: str) -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "o", "observer") as peer:
            await peer.ask(Supervise(fleet=FLEET))
            with pytest.raises(RefusedError, match=said):
                await peer.ask(Scale(actors=actors))
            assert (await peer.status()).order is None

    run(scenario)


def test_an_order_that_no_launcher_would_follow_is_refused() -> None:
    async def scenario() -> None:
        clock = Clock()
        hub = make_hub(clock=clock)
        async with serving(hub), Peer(hub, "o", "observer") as peer:
            with pytest.raises(RefusedError, match="no_launcher"):
                await peer.ask(Scale(actors=2))
            await peer.ask(Supervise(fleet=FLEET))
            clock.now += 60
            with pytest.raises(RefusedError, match="no_launcher"):
                await peer.ask(Scale(actors=2))

    run(scenario)


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        ({"wanted": 2, "running": 2, "least": 2, "most": 2}, "2 throughout"),
        ({"wanted": 2, "running": 2, "is_ending": True}, "the run ends after the step under way"),
    ],
)
def test_a_run_whose_actors_cannot_change_says_why(fleet: dict[str, Any], said: str) -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "o", "observer") as peer:
            await peer.ask(Supervise(fleet=FleetStatus(**fleet)))
            with pytest.raises(RefusedError, match=said):
                await peer.ask(Scale(actors=3))

    run(scenario)


def test_who_stays_is_granted_at_once_what_an_actor_that_is_to_leave_would_have_got() -> None:
    async def scenario() -> None:
        hub = make_hub(schedule=ScheduleConfig(max_staleness=1, steps=50))
        async with serving(hub), Peer(hub, "a", "actor") as leaving, Peer(hub, "b", "actor") as staying:
            await leaving.lease(1, v(0))
            assert len(await staying.lease(9, v(0))) == B, "half of what may be under way"
            waiting = asyncio.create_task(staying.lease(9, v(0), wait_s=60))
            await staying.status()
            assert not waiting.done()
            await leaving.ask(Heartbeat(name="a", version=v(0), is_leaving=True))
            assert len(await waiting) == B - 1

    run(scenario)


def test_an_actor_that_is_to_leave_is_granted_nothing_more() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "a", "actor") as leaving:
            (item, _) = await leaving.lease(9, v(0))
            waiting = asyncio.create_task(leaving.lease(9, v(0), wait_s=60))
            await leaving.status()
            await leaving.ask(Heartbeat(name="a", version=v(0), is_leaving=True))
            assert await waiting == []
            await leaving.ask(Return(lease_id=item.lease_id, failed=False))
            assert await leaving.lease(9, v(0)) == []
            # Its successor of the same name begins anew.
            async with Peer(hub, "a", "actor", pid=2) as successor:
                assert len(await successor.lease(9, v(0))) == B

    run(scenario)


def test_without_a_maximum_what_the_machines_can_hold_is_the_bound_and_force_lifts_it() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "o", "observer") as peer:
            await peer.ask(Supervise(fleet=FleetStatus(wanted=1, running=1, fitting=3)))
            with pytest.raises(RefusedError, match=r"5000 actors: expected at most 3, .* --force .* actors\.max"):
                await peer.ask(Scale(actors=5000))
            await peer.ask(Scale(actors=3))
            await peer.ask(Scale(actors=5000, force=True))
            assert (await peer.status()).order == ScaleOrder(number=2, actors=5000)
            await peer.ask(Supervise(fleet=FLEET))
            with pytest.raises(RefusedError, match=r"at most actors\.max = 4"):
                await peer.ask(Scale(actors=5, force=True))

    run(scenario)


def test_a_goodbye_returns_all_leases_at_once_and_the_one_that_is_being_granted() -> None:
    async def scenario() -> None:
        hub = make_hub()
        async with serving(hub), Peer(hub, "a", "actor") as leaving, Peer(hub, "b", "actor") as staying:
            items = await leaving.lease(9, v(0))
            waiting = asyncio.create_task(leaving.lease(9, v(0), wait_s=60))
            await leaving.status()
            await leaving.ask(Goodbye(name="a"))
            assert await waiting == []
            assert [client.name for client in (await staying.status()).clients] == ["b"]
            assert {x.entry_id for x in await staying.lease(9, v(0))} == {x.entry_id for x in items}
            assert len(items) == B

    run(scenario)
