"""How the engine's process is started, and how it ends when its actor does."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator

from protocol.core_loan import CoreLoan

OWNER_VARIABLE = "RAPID_ENGINE_OWNER"
"""Process whose end is the engine process's end too."""
CORES_VARIABLE = "RAPID_ENGINE_CORES"
"""CPU cores of the engine process, such as "0,1"."""
LOAN_VARIABLE = "RAPID_ENGINE_CORE_LOAN"
"""A `CoreLoan` as JSON: cores that the engine process may use at times."""

# Each decoding step allocates logits and log-probabilities of tens of MiB. By default glibc maps such blocks afresh and
# unmaps them, and the kernel zeroes every page of them at every step: a tenth of the engine's time at 192 sequences.
_KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**26),
}


@contextlib.contextmanager
def engine_environment(
    cores: list[int] | None, folder: str, *, loan: CoreLoan | None = None, takes_handles: bool = False
) -> Iterator[None]:
    """Environment variables for vLLM while its engine process is spawned; they are put back afterwards.

    Args:
        cores: CPU cores of the engine, a thread on each. None leaves threads and cores to the libraries.
        loan: cores beyond these at times, with a thread on each of them, too.
        folder: for sockets and temporary files, most of which vLLM leaves behind.
        takes_handles: whether the engine takes handles of GPU memory, pickled, from this process.
    """
    wanted = {
        OWNER_VARIABLE: str(os.getpid()),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "TOKENIZERS_PARALLELISM": "false",
        # vLLM adds libraries to it for its own children; ours should not inherit them.
        "LD_PRELOAD": os.environ.get("LD_PRELOAD", ""),
        # The first for the sockets that this process names, the second for what its children make.
        "VLLM_RPC_BASE_PATH": folder,
        "TMPDIR": folder,
        **_KEEP_FREED_MEMORY,
    }
    if takes_handles:
        wanted["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    if cores is not None:
        wanted |= {CORES_VARIABLE: ",".join(map(str, cores)), "OMP_NUM_THREADS": str(len(cores))}
    if loan is not None:
        wanted[LOAN_VARIABLE] = loan.model_dump_json()
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
