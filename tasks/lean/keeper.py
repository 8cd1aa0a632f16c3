"""Runs a command on a file that comes by stdin, and ends it with all that it started when whoever asked ends.

    python keeper.py PARENT PROCESSOR_S COMMAND…

A process of its own, because lake starts Lean as a child: what the kernel can do by itself when a reward worker is
killed reaches lake alone. SIGTERM, from the worker or from the kernel at the worker's end, ends it all.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
# Blocked and waited for, so that none arrives while the command is being started.
SIGNALS = {signal.SIGTERM, signal.SIGCHLD}


def keep(parent: int, processor_s: int, command: list[str]) -> int:
    """The command's status; 1 if it was ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    text = sys.stdin.buffer.read()
    if os.getppid() != parent:
        return 1

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        resource.setrlimit(resource.RLIMIT_CPU, (processor_s, processor_s))

    with tempfile.TemporaryDirectory(prefix="rapid-lean-") as folder:
        file = Path(folder) / "Proof.lean"
        file.write_bytes(text)
        process = subprocess.Popen(
            [*command, str(file)], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=prepare
        )
        while process.poll() is None and signal.sigwait(SIGNALS) != signal.SIGTERM:
            pass
        # What it started ends with it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode if process.returncode >= 0 else 1


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
