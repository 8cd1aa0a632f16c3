"""vLLM's model executor as Rapid runs it: inside the engine process, bound to its cores, never outliving the actor."""

from __future__ import annotations

import os
import select
import signal
import threading

from vllm.v1.executor.uniproc_executor import UniProcExecutor

import actors.transfer  # noqa: F401  registers the weight transfer in this process
from actors.engine_process import CORES_VARIABLE, OWNER_VARIABLE


class ActorExecutor(UniProcExecutor):
    """One worker, in the process of the scheduler.

    vLLM puts a CPU worker into a third process, so that OpenMP finds its environment when it is loaded. The actor sets
    that environment before it starts the engine process, and so saves the third process, its start, and a hop
    between processes at each decoding step.
    """

    def _init_executor(self) -> None:
        end_with(int(os.environ[OWNER_VARIABLE]))
        if cores := os.environ.get(CORES_VARIABLE):
            os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
        super()._init_executor()


def end_with(pid: int) -> None:
    """Kill this process as soon as process `pid` is gone, however it ended.

    vLLM notices the death of its children, but not that of its parent. A file descriptor of the process is exact
    where the parent's pid is not: that changes with re-parenting, and pids are used again.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="rapid-owner", daemon=True).start()
