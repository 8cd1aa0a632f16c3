"""The environment in which the engine's processes are started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

OWNER_VARIABLE = "RAPID_ENGINE_OWNER"
CORES_VARIABLE = "RAPID_ENGINE_CORES"


@contextlib.contextmanager
def engine_environment(cores: list[int] | None) -> Iterator[None]:
    """Environment variables for vLLM while its engine process is spawned; they are put back afterwards.

    Args:
        cores: CPU cores of the engine, a thread on each. None leaves threads and cores to the libraries.
    """
    wanted = {
        OWNER_VARIABLE: str(os.getpid()),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "LD_PRELOAD": _preloaded(),
    }
    if cores is not None:
        wanted |= {CORES_VARIABLE: ",".join(map(str, cores)), "OMP_NUM_THREADS": str(len(cores))}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _preloaded() -> str:
    return os.environ.get("LD_PRELOAD", "")
