"""Threads of an engine: more on borrowed cores, none there otherwise, and the same numbers either way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from actors.config import ActorsConfig
from actors.engine import GenerateRequest
from actors.vllm_engine import VllmEngine
from protocol.config import ModelConfig, WeightsConfig
from protocol.core_loan import FIRST_ACTOR, LEARNER, CoreLoan, Lender
from protocol.version import PolicyVersion
from tests.actors.fakes import make_llama

CORES = sorted(os.sched_getaffinity(0))[:2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(len(CORES) < 2, reason="borrowing wants a second core"),
]

# In a process of its own, as libraries read OMP_NUM_THREADS once, and the products of the whole process are changed.
BORROW = """
import json, os, sys
from pathlib import Path

own, lent, file = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
os.environ["OMP_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {own})
import torch
import vllm._C
from vllm import _custom_ops
from actors.threads import borrowed_threads
from protocol.core_loan import FIRST_ACTOR, LEARNER, CoreLoan, Lender

lender = Lender(CoreLoan(file=file, seat=LEARNER, lent=[]))
threads = borrowed_threads(CoreLoan(file=file, seat=FIRST_ACTOR, lent=[lent]))
torch.manual_seed(0)
handler = _custom_ops.create_onednn_mm(torch.randn(3072, 576).bfloat16().t(), 32)
inputs, bias = torch.randn(4, 32, 576).bfloat16(), torch.randn(3072).bfloat16()
told = []
for works in (True, False, True, False):
    lender.note(works=works)
    threads.adjust()
    product = _custom_ops.onednn_mm(handler, inputs, bias)
    shape, total = list(product.shape), product.double().sum().item()
    tids = os.listdir("/proc/self/task")
    borrowing = [tid for tid in tids if os.sched_getaffinity(int(tid)) == {lent}]
    told.append([torch.get_num_threads(), len(borrowing), sorted(os.sched_getaffinity(0)), shape, total])
print(json.dumps(told))
"""


def test_a_wide_step_has_a_thread_on_each_borrowed_core_and_a_narrow_one_has_none(tmp_path: Path) -> None:
    own, lent = CORES
    done = subprocess.run(
        [sys.executable, "-c", BORROW, str(own), str(lent), str(tmp_path / "loans")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    threads, borrowing, main, shapes, totals = zip(*told, strict=True)
    assert threads == (1, 2, 1, 2)
    # OpenMP's thread, and what else torch resizes with it: those that were started stay, and sleep.
    assert borrowing[0] == 0 < borrowing[1] == borrowing[2] == borrowing[3]
    assert set(map(tuple, main)) == {(own,)}
    assert set(map(tuple, shapes)) == {(4, 32, 3072)}
    assert len(set(totals)) == 1


def test_an_engine_computes_on_the_learners_core_once_that_waits(tmp_path: Path) -> None:
    own, lent = CORES
    make_llama(tmp_path, tied=True)
    loan = CoreLoan(file=tmp_path / "loans", seat=FIRST_ACTOR, lent=[lent])
    config = ActorsConfig(group_size=2, concurrent_groups=1, max_tokens=8, kv_cache_gib=0.1)
    model = ModelConfig(path="tiny", max_context=64)
    engine = VllmEngine(tmp_path, model, config, WeightsConfig(), (1,), cores=[own], loan=loan)
    narrow, wide = asyncio.run(count_threads(engine, Lender(CoreLoan(file=loan.file, seat=LEARNER, lent=[])), lent))
    assert narrow == 0 < wide


async def count_threads(engine: VllmEngine, lender: Lender, core: int) -> tuple[int, int]:
    """Threads on the learner's core after steps while the learner works, and after steps while it waits."""
    request = GenerateRequest("0:0", np.arange(2, 10, dtype=np.int32), 2, 8, 1.0, seed=0)
    counts = []
    try:
        await asyncio.wait_for(engine.start(PolicyVersion(1, 0)), 600)
        for works in (True, False):
            lender.note(works=works)
            await engine.generate(request)
            counts.append(num_threads_on(core))
    finally:
        await engine.close()
    return counts[0], counts[1]


def num_threads_on(core: int) -> int:
    """Threads of this process's children that run on that core and nowhere else."""
    found = 0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # It may end between two looks at it.
            found += sum(os.sched_getaffinity(thread.id) == {core} for thread in child.threads())
    return found
