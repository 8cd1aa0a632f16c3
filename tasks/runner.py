"""Rewards off the event loop and out of the process: a reward function that hangs or crashes costs a worker."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType

from tasks.build import Split
from tasks.config import TaskConfig
from tasks.process import WorkerProcess
from tasks.task import Outcome

__all__ = ["Outcome", "RewardRunner"]


class RewardRunner:
    """Scores completions in `workers` processes, each of which builds the task for itself.

    The processes start in the background at once, so that they are ready when the first completion is. Use it from one
    event loop, and close it.
    """

    def __init__(
        self,
        config: TaskConfig,
        workers: int = 1,
        timeout_s: float = 10.0,
        split: Split = "train",
        *,
        all_or_nothing: bool = False,
    ) -> None:
        """`timeout_s`: seconds that judging one completion may take.

        `all_or_nothing`: after one completion that hangs or ends its process the others of the call fail unjudged. For
        training, where a group with one failure is void, so that a hanging reward holds a worker once and not G times.
        """
        self._all_or_nothing = all_or_nothing
        # A thread each: the kernel ends a worker with the thread that started it, and these live until close.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="reward")
        self._workers = [WorkerProcess(config, timeout_s, split) for _ in range(workers)]
        self._idle: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        for worker in self._workers:
            self._idle.put_nowait(worker)
            self._threads.submit(worker.start)

    async def score(self, index: int, completions: list[str]) -> list[Outcome]:
        """An outcome for each completion of prompt `index`, in order.

        A reward function that raises, hangs, ends its process or returns no finite number gives a failure with the
        reason, for that completion. Raises TaskError when a worker cannot build the task.
        """
        worker = await self._idle.get()
        score = partial(worker.score, index, list(completions), all_or_nothing=self._all_or_nothing)
        job = asyncio.get_running_loop().run_in_executor(self._threads, score)
        # The worker is free when its job is done, which cancelling this call does not hasten.
        job.add_done_callback(lambda _: self._idle.put_nowait(worker))
        return await asyncio.shield(job)

    async def close(self) -> None:
        """Ends all workers; what is still being scored fails."""
        for worker in self._workers:
            worker.close()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.release()

    async def __aenter__(self) -> RewardRunner:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
