"""Which system calls a jailed process may make. All others fail with EPERM, which Python raises as PermissionError.

A list of what is allowed, so that a call that is invented tomorrow is refused. What is not on it, among much else: fork
and clone (no processes, no threads, so no bombs and no daemons), execve, socket, kill and every other way to signal,
ptrace, process_vm_readv, mount, unshare, symlink, and opening a file for anything but reading.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RET_ALLOW = 0x7FFF0000
RET_EPERM = 0x00050000 | errno.EPERM
RET_KILL = 0x80000000
# Opcodes of classic BPF: load a word of the call's description, compare, mask, return.
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16
X32_CALLS = 0x40000000

# Opening for reading, with these flags or none.
READING_FLAGS = os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | 0o100000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. Not F_SETOWN, which aims signals at other processes.
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)

# Memory, time, own signals' handlers, descriptors that are already open, the end.
CALLS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
        "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "readv": 19, "writev": 20,
        "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "pause": 34, "nanosleep": 35, "getitimer": 36,
        "alarm": 37, "setitimer": 38, "getpid": 39, "exit": 60, "uname": 63, "gettimeofday": 96, "getrusage": 98,
        "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
        "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219,
        "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "pselect6": 270,
        "ppoll": 271, "getrandom": 318, "membarrier": 324,
    },
    "aarch64": {
        "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pselect6": 72, "ppoll": 73,
        "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101, "getitimer": 102, "setitimer": 103,
        "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123,
        "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
        "rt_sigreturn": 139, "times": 153, "uname": 160, "getrusage": 165, "gettimeofday": 169, "getpid": 172,
        "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179,
        "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278,
        "membarrier": 283,
    },
}  # fmt: skip
# Only where the file system holds nothing but what a program may see.
READING_CALLS = {
    "x86_64": {
        "stat": 4, "lstat": 6, "pread64": 17, "access": 21, "getcwd": 79, "readlink": 89, "getdents64": 217,
        "newfstatat": 262, "readlinkat": 267, "faccessat": 269, "statx": 332, "faccessat2": 439,
    },
    "aarch64": {
        "getcwd": 17, "faccessat": 48, "getdents64": 61, "pread64": 67, "readlinkat": 78, "newfstatat": 79,
        "statx": 291, "faccessat2": 439,
    },
}  # fmt: skip
FCNTL = {"x86_64": 72, "aarch64": 25}
OPENAT = {"x86_64": 257, "aarch64": 56}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@cache
def libc() -> ctypes.CDLL:
    """The C library, looked up once, by the zygote for all that it forks."""
    return ctypes.CDLL(None, use_errno=True)


def statement(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; jumps count the instructions that are skipped."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def allow_if(number: int, checks: list[bytes]) -> list[bytes]:
    """The call `number` goes through `checks`, which return; any other call passes them by."""
    load = statement(LOAD, NUMBER_AT)
    return [load, statement(JUMP_EQUAL, number, 0, len(checks)), *checks]


def build_filter(machine: str, *, may_read_files: bool) -> bytes:
    """The filter's instructions. `machine` as uname names it. Raises KeyError for one that is not known."""
    allow, refuse = statement(RETURN, RET_ALLOW), statement(RETURN, RET_EPERM)
    program = [
        statement(LOAD, ARCHITECTURE_AT),
        statement(JUMP_EQUAL, ARCHITECTURES[machine], 1, 0),
        statement(RETURN, RET_KILL),
        statement(LOAD, NUMBER_AT),
        statement(JUMP_GREATER_EQUAL, X32_CALLS, 0, 1),
        refuse,
    ]
    numbers = list(CALLS[machine].values()) + (list(READING_CALLS[machine].values()) if may_read_files else [])
    for number in numbers:
        program += [statement(JUMP_EQUAL, number, 0, 1), allow]
    command = [statement(LOAD, ARGUMENTS_AT + 8)]
    for value in FCNTL_COMMANDS:
        command += [statement(JUMP_EQUAL, value, 0, 1), allow]
    program += allow_if(FCNTL[machine], [*command, refuse])
    if may_read_files:
        flags = [
            statement(LOAD, ARGUMENTS_AT + 16),
            statement(AND, ~READING_FLAGS & 0xFFFFFFFF),
            statement(JUMP_EQUAL, 0, 0, 1),
            allow,
            refuse,
        ]
        program += allow_if(OPENAT[machine], flags)
    return b"".join([*program, refuse])


def install(program: bytes) -> None:
    """Filter this process's calls from now on, for good. Raises OSError where the kernel has no such filter."""
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are.
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    for option, arguments in (
        (PR_SET_NO_NEW_PRIVS, (1, 0, 0, 0)),
        (PR_SET_SECCOMP, (SECCOMP_MODE_FILTER, header, 0, 0)),
    ):
        wide = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
        if libc().prctl(option, *wide) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({option}) failed: {os.strerror(number)}")
