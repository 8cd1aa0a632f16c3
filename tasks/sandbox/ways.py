"""How the sandbox is walled off from this machine: by bubblewrap, or by what a process can give up on its own.

Either way each checked program is locked in by resource limits and a filter of system calls (see box/jail.py and
box/seccomp.py). Bubblewrap puts a second wall around it: namespaces in which there is nothing to reach.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from tasks.errors import TaskError
from tasks.sandbox.box.seccomp import ARCHITECTURES

WayName = Literal["auto", "bubblewrap", "process"]
PROBE_TIMEOUT_S = 20.0
BOX = Path(__file__).resolve().parent / "box"
# Where the sandbox finds our code and numpy, when bubblewrap makes its file system.
INSIDE = "/rapid"
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/nix/store")
PROCESS_NOTE = (
    "without bubblewrap one wall holds generated code, a filter of system calls: it cannot open files, connect, start "
    "or signal processes, but no second wall would hold what finds a hole in the kernel"
)


@dataclass(frozen=True)
class Way:
    """One way of sandboxing that works on this machine."""

    name: Literal["bubblewrap", "process"]
    description: str
    """For `rapid doctor`: what will be used."""
    note: str = ""
    """What it does not contain. Empty when that is nothing worth saying."""

    def command(self, arguments: list[str]) -> list[str]:
        """The command that runs Python with these arguments, walled off as far as this way does so from without."""
        return [*(wall() if self.name == "bubblewrap" else []), interpreter(), "-s", "-S", "-P", "-B", *arguments]

    def packages(self) -> list[str]:
        """Folders that hold numpy and our code, as the sandboxed Python finds them."""
        folders = [str(folder.parent) for folder in numpy_folders()[:1]]
        return [f"{INSIDE}/packages"] if self.name == "bubblewrap" and folders else folders

    def box_parent(self) -> str:
        """The folder in which the sandboxed Python finds the package `box`."""
        return INSIDE if self.name == "bubblewrap" else str(BOX.parent)


def interpreter() -> str:
    """The Python that our virtual environment was made from."""
    return os.path.realpath(sys.executable)


@lru_cache(maxsize=1)
def numpy_folders() -> tuple[Path, ...]:
    """numpy's folder and that of its libraries. Nothing of it is imported."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or not spec.submodule_search_locations:
        return ()
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    libraries = folder.with_name("numpy.libs")
    return (folder, libraries) if libraries.is_dir() else (folder,)


def wall() -> list[str]:
    """bubblewrap with no network, no processes, and no files but Python's, numpy's and our own, all read-only.

    No /proc, which would show the memory of the processes beside; no /tmp, so that nothing is left from check to check.
    """
    python = interpreter()
    arguments = ["--unshare-all", "--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for source in (*SYSTEM_LIBRARIES, str(Path(sys.base_prefix) / "lib"), python):
        arguments += ["--ro-bind-try", source, source]
    arguments += ["--ro-bind", str(BOX), f"{INSIDE}/box"]
    for folder in numpy_folders():
        arguments += ["--ro-bind", str(folder), f"{INSIDE}/packages/{folder.name}"]
    # --unshare-user is meant by --unshare-all, but --disable-userns wants it said.
    return ["bwrap", "--unshare-user", *arguments, "--remount-ro", "/", "--chdir", "/", "--"]


@lru_cache(maxsize=3)
def choose(wanted: WayName) -> Way:
    """The way to use for `task.sandbox`. Raises TaskError when it does not work here."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        raise TaskError(
            f"this task executes what the model wrote, for which there is a sandbox on Linux with "
            f"{' or '.join(ARCHITECTURES)}; this is {sys.platform} on {machine}: use another machine, or another task"
        )
    if wanted == "process":
        return process()
    failure = try_bubblewrap()
    if failure is None:
        return Way("bubblewrap", f"bubblewrap {version()}, with a filter of system calls")
    if wanted == "bubblewrap":
        raise TaskError(
            f'task.sandbox is "bubblewrap", but {failure}; install bubblewrap where it may make namespaces, '
            'or set task.sandbox = "process"'
        )
    return process(failure)


def process(failure: str = "") -> Way:
    reason = f"{failure}: " if failure else ""
    return Way("process", f"{reason}a filter of system calls, limits and a user of its own", PROCESS_NOTE)


def try_bubblewrap() -> str | None:
    """Why bubblewrap does not work here, or None if it does."""
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    way = Way("bubblewrap", "")
    try:
        done = subprocess.run(
            way.command(["-c", "pass"]), capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env={}, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be run ({error})"
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        return f"bwrap does not work here ({said})"
    return None


def version() -> str:
    said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return said[-1] if said else ""
