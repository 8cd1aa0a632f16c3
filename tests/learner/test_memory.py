from __future__ import annotations

import os
import subprocess
import sys

from learner.settings import PROCESS_ENVIRONMENT

# Blocks of 1 MiB below one that stays: their pages are free in the heap, and not at its end.
_PROGRAM = """
import ctypes, psutil
from learner.memory import SPARE_BYTES, trim_memory

C = ctypes.CDLL(None)
C.malloc.restype, C.malloc.argtypes, C.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def free_blocks(count):
    blocks = [C.malloc(2**20) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, 2**20)
    last = C.malloc(2**20)
    for block in blocks:
        C.free(block)
    return last

def resident():
    return psutil.Process().memory_info().rss

start = resident()
free_blocks(256)
assert not trim_memory(), "so little is kept"
assert resident() - start > 200 * 2**20
free_blocks(SPARE_BYTES // 2**20 + 128)
assert trim_memory(), "that is too much"
assert resident() - start < 100 * 2**20, resident() - start
assert not trim_memory()
"""


def test_free_memory_is_given_back_when_it_is_more_than_is_in_use() -> None:
    environment = {**os.environ, **PROCESS_ENVIRONMENT}
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr
