"""The filter of system calls, tried with raw calls as no library would make them."""

from __future__ import annotations

import errno
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.sandbox.box import seccomp

PROGRAM = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from box.seccomp import build_filter, install
libc = ctypes.CDLL(None, use_errno=True)
install(build_filter(sys.argv[2], may_read_files=sys.argv[3] == "files"))
for call in sys.argv[4:]:
    ctypes.set_errno(0)
    numbers = [ctypes.c_long(int(part, 0)) for part in call.split(",")]
    result = libc.syscall(*numbers)
    print(result, ctypes.get_errno())
"""
# fork, vfork, clone, clone3, execve, execveat, socket, socketpair, kill, tkill, tgkill, pidfd_send_signal, ptrace,
# process_vm_readv, process_vm_writev, unshare, setns, mount, chroot, io_uring_setup, memfd_create, bpf, symlink, link,
# open, creat, openat2, prctl, prlimit64, setuid, sched_setscheduler, rt_sigqueueinfo, keyctl, userfaultfd, pipe2, dup2,
# and a call of the x32 table.
REFUSED = (
    57, 58, 56, 435, 59, 322, 41, 53, 62, 200, 234, 424, 101, 310, 311, 272, 308, 165, 161, 425, 319, 321, 88, 86,
    2, 85, 437, 157, 302, 105, 144, 129, 250, 323, 293, 33, 1073741881,
)  # fmt: skip

x86_64_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="raw numbers of x86-64")


def call(files: str, *calls: str) -> list[tuple[int, int]]:
    """Result and errno of each call "number,argument,…" under the filter."""
    folder = Path(seccomp.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, str(folder), platform.machine(), files, *calls],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [(int(line.split()[0]), int(line.split()[1])) for line in done.stdout.splitlines()]


@x86_64_only
@pytest.mark.parametrize("files", ["files", "none"])
def test_dangerous_calls_are_refused(files: str) -> None:
    results = call(files, *(f"{number},0,0,0,0,0,0" for number in REFUSED))
    assert results == [(-1, errno.EPERM)] * len(REFUSED)


@x86_64_only
def test_files_are_opened_for_reading_only_and_only_where_they_may_be() -> None:
    # openat(AT_FDCWD, NULL, flags): EFAULT where the kernel looks at the path, EPERM where the filter refuses.
    flags = {"O_RDONLY": 0, "O_CLOEXEC": 0x80000, "O_WRONLY": 1, "O_RDWR": 2, "O_CREAT": 0x40, "O_PATH": 0x200000}
    calls = [f"257,-100,0,{value}" for value in flags.values()]
    assert [number for _, number in call("files", *calls)] == [errno.EFAULT] * 2 + [errno.EPERM] * 4
    assert {number for _, number in call("none", *calls)} == {errno.EPERM}


@x86_64_only
def test_a_descriptor_cannot_be_aimed_at_another_process() -> None:
    # F_GETFL goes through, F_SETOWN and F_SETSIG do not.
    assert [number for _, number in call("files", "72,1,3", "72,1,8,1", "72,1,10,9")] == [0, errno.EPERM, errno.EPERM]


def test_what_a_program_needs_is_allowed() -> None:
    if platform.machine() == "x86_64":
        assert call("none", "39")[0][0] > 0  # getpid


def test_a_machine_without_a_table_is_an_error() -> None:
    with pytest.raises(KeyError):
        seccomp.build_filter("sparc64", may_read_files=False)
