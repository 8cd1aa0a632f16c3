"""The leases that an actor holds, each with the task that turns it into a group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from actors.activity import Activity
from actors.engine import Engine
from actors.group_maker import GroupFailedError, GroupMaker
from actors.hub_link import HubLink
from actors.settings import RolloutSettings
from actors.text import ChatText
from protocol.errors import ProtocolError, RefusedError
from protocol.messages import AnyMessage, Return, Submit, WorkItem

log = logging.getLogger(__name__)

GOODBYE_S = 2.0
"""How long the hub may take to hear something on the way out."""
_CANCEL_AGAIN_S = 0.2


class Workload:
    """Begins groups, submits them, and hands back what does not become one. Belongs to one event loop.

    Args:
        task, text, engine, runner, activity: as of `GroupMaker`.
        mark: called when a group has ended.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        task: Any,
        text: ChatText,
        engine: Engine,
        runner: Any,
        activity: Activity,
        link: HubLink,
        mark: Callable[[], None],
    ) -> None:
        self._maker = GroupMaker(settings, task, text, engine, runner, activity, self._leave_engine)
        self._activity, self._link, self._mark = activity, link, mark
        self._wanted = settings.actors.concurrent_groups + settings.actors.lease_batch
        self._groups: dict[str, asyncio.Task[None]] = {}
        self._undrawn: set[str] = set()  # leases whose tokens are not all drawn, begun or not
        self._goodbyes: set[asyncio.Task[None]] = set()
        self.is_draining = False
        """Whether nothing new is begun: what is leased all the same goes back."""
        self.changed = asyncio.Event()
        """Set when there may be room again."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the error of a group that ends the actor."""

    @property
    def leases(self) -> list[str]:
        """Leases that are held."""
        return list(self._groups)

    @property
    def room(self) -> int:
        """Groups that may be leased now; not above 0 for none."""
        # Groups that only wait for rewards leave the engine free, but there must be an end to them too.
        room = min(self._wanted - len(self._undrawn), 2 * self._wanted - len(self._groups))
        return 0 if self.is_draining else room

    def begin(self, item: WorkItem) -> None:
        """Turn a lease into a group; hand it back if nothing is begun any more."""
        if self.is_draining:
            self._hand_back(item)
            return
        self._undrawn.add(item.lease_id)
        task = asyncio.create_task(self._run_group(item))
        self._groups[item.lease_id] = task
        task.add_done_callback(lambda _: self._finish(item, task))

    def abandon(self) -> None:
        """Hand everything back that is not submitted yet."""
        for task in self._groups.values():
            task.cancel()

    async def wait_until_empty(self) -> None:
        """Wait until every group has ended."""
        while self._groups:
            await asyncio.wait(self._groups.values())

    async def close(self) -> None:
        """Hand everything back, and wait until that is said."""
        self.is_draining = True
        await cancel_all(self._groups.values())
        await asyncio.gather(*self._goodbyes)

    def _finish(self, item: WorkItem, task: asyncio.Task[None]) -> None:
        del self._groups[item.lease_id]
        self._leave_engine(item)
        self._mark()
        if task.cancelled():
            # Here and not within the task, which a cancellation may reach before its first line.
            self._hand_back(item)
        elif (error := task.exception()) is not None and not self.failure.done():
            self.failure.set_exception(error)

    def _leave_engine(self, item: WorkItem) -> None:
        self._undrawn.discard(item.lease_id)
        self.changed.set()

    async def _run_group(self, item: WorkItem) -> None:
        try:
            group = await self._maker.make(item)
            answer: AnyMessage = Submit(lease_id=item.lease_id, group=group)
        except GroupFailedError as error:
            log.warning("group %s failed, attempt %d: %s", item.entry_id, item.attempt, error)
            self._activity.count_failed()
            answer = Return(lease_id=item.lease_id, failed=True, reason=str(error))
        try:
            await self._link.request(answer)
        except RefusedError as error:
            log.warning("group %s is void: %s", item.entry_id, error)
            self._activity.groups_void += 1
        else:
            if isinstance(answer, Submit):
                self._activity.count_submitted()

    def _hand_back(self, item: WorkItem) -> None:
        goodbye = asyncio.create_task(self._return_lease(item))
        self._goodbyes.add(goodbye)
        goodbye.add_done_callback(self._goodbyes.discard)

    async def _return_lease(self, item: WorkItem) -> None:
        # Once is enough: a lease that is not returned runs out.
        with contextlib.suppress(ProtocolError):
            await self._link.say(Return(lease_id=item.lease_id, failed=False, reason="drained"), GOODBYE_S)


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all have ended; their errors are dropped.

    Once is not enough: libraries use `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes
    together with its result, and the task goes on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()
