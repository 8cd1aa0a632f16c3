"""The process in which reward functions run. Started by tasks/runner.py, once for each reward worker.

Parent to worker:  (config, split, timeout_s) once, then Job = (prompt index, completions) again and again.
Worker to parent:  ("ready", None) or ("broken", reason) once, then (position, Outcome) for each completion of a job.

Both ends are ours and the socket pair has no name, so pickle meets no stranger here. A reward function runs in the main
thread, because math-verify limits its time by signals. It may do anything to this process, except outlive it.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from tasks.build import build_task
from tasks.errors import TaskError
from tasks.task import Outcome, Prompt, Task, as_reward

PR_SET_PDEATHSIG = 1
REASON_CHARACTERS = 500


def main(fd: int, parent: int) -> None:
    """Serves jobs that arrive on the socket `fd` until the process `parent` closes it or dies."""
    die_with_parent(parent)
    # Ctrl-C reaches the whole foreground group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(fd)
    try:
        config, split, timeout_s = connection.recv()
        task = build_or_report(config, split, connection)
        if task is not None:
            with asyncio.Runner() as runner:
                serve(task, timeout_s, connection, runner)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # The parent has gone or wants no more.


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when the thread that started it ends, even amid a reward that never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def build_or_report(config: Any, split: Any, connection: Connection) -> Task | None:
    try:
        task = build_task(config, split)
    except TaskError as error:
        connection.send(("broken", str(error)))
        return None
    connection.send(("ready", None))
    return task


def serve(task: Task, timeout_s: float, connection: Connection, runner: asyncio.Runner) -> None:
    while True:
        index, completions = connection.recv()
        runner.run(score_all(task, index, completions, timeout_s, connection))


async def score_all(task: Task, index: int, completions: list[str], timeout_s: float, connection: Connection) -> None:
    """Plain reward functions run one after the other, asynchronous ones side by side."""
    try:
        prompt = task.prompt(index)
    except Exception as error:  # The task may be the user's: anything may happen in it.
        failure = Outcome(None, f"prompt {index} failed: {describe_failure(error)}")
        for position in range(len(completions)):
            connection.send((position, failure))
        return

    async def report(position: int, completion: str) -> None:
        connection.send((position, await score_one(task, prompt, completion, timeout_s)))

    await asyncio.gather(*(report(position, completion) for position, completion in enumerate(completions)))


async def score_one(task: Task, prompt: Prompt, completion: str, timeout_s: float) -> Outcome:
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            value = await call_reward(task, prompt, completion)
        return Outcome(as_reward(value), None)
    except BaseException as error:  # A reward function may raise anything, SystemExit too; a failure is data here.
        return Outcome(
            None, timed_out(timeout_s) if limit.expired() else f"the reward function raised {describe_failure(error)}"
        )


async def call_reward(task: Task, prompt: Prompt, completion: str) -> object:
    value: object = task.reward(prompt, completion)
    return await value if inspect.isawaitable(value) else value


def timed_out(timeout_s: float) -> str:
    return f"the reward function took longer than {timeout_s:g} s"


def describe_failure(error: BaseException) -> str:
    """What was raised and where, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}"[:REASON_CHARACTERS] + place
