"""Where there is no bubblewrap: what a process can give up by itself, as far as the kernel and its user permit."""

from __future__ import annotations

import os
import pwd

from .jail import die_with_parent
from .seccomp import libc

CLONE_NEWUSER, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS = 0x10000000, 0x08000000, 0x40000000, 0x04000000
NAMESPACES = CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS
FIRST_UID, NUM_UIDS = 60_100, 4_900


def drop_privileges() -> list[str]:
    """A network of its own, and a user that nobody is. Returns what of it could not be had."""
    notes = []
    if not unshare(NAMESPACES) and not unshare(NAMESPACES | CLONE_NEWUSER):
        notes.append("no namespaces may be made here, so the filter of system calls alone keeps it off the network")
    if os.geteuid() == 0:
        if not become(free_uid()):
            notes.append("its user cannot be changed, so it runs as root without the right to open anything")
    else:
        notes.append("it runs as your user, whom the filter of system calls alone keeps from your processes")
    # Changing the user has cancelled it.
    die_with_parent()
    return notes


def unshare(flags: int) -> bool:
    return bool(libc().unshare(flags) == 0)


def free_uid() -> int:
    """A user id without a user, and another one for each zygote, so that they cannot reach each other."""
    ids = (FIRST_UID + (os.getpid() + step) % NUM_UIDS for step in range(NUM_UIDS))
    return next(uid for uid in ids if not has_user(uid))


def has_user(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def become(uid: int) -> bool:
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError:  # A user namespace without that id.
        return False
    return True
