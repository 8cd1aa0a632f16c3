"""Memory that the allocator keeps for itself, given back to the system when it has become too much."""

from __future__ import annotations

import ctypes

import psutil

SPARE_BYTES = 2**30
"""Resident memory beyond what is in use that is never given back."""
SPARE_SHARE = 0.75
"""The same as a share of what is in use, for models whose steps need more."""


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def trim_memory() -> bool:
    """Return the heap's free pages to the system if the process holds many more than it uses; whether it did.

    A step needs most of what the step before has freed, and memory that is new to the process is expensive: after a
    trim every eighth step a tenth of all time was page faults. But micro-batches differ in shape, so that the heap
    breaks up: with a 134 M parameter model it grew by some 150 MB a step, from 3 to 9 GB in 30 steps.

    Does nothing where the C library is not glibc, or older than 2.33.
    """
    library = ctypes.CDLL(None)
    trim, look = getattr(library, "malloc_trim", None), getattr(library, "mallinfo2", None)
    if trim is None or look is None:
        return False
    look.restype = _Mallinfo2
    heap = look()
    # The heap's own count of what is free goes on after its pages are given back; what is resident tells.
    used = heap.uordblks + heap.hblkhd
    is_too_much: bool = psutil.Process().memory_info().rss - used > max(SPARE_BYTES, SPARE_SHARE * used)
    if is_too_much:
        trim(0)
    return is_too_much
