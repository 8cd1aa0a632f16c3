"""The engine's process: its environment, and that it never outlives its actor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from actors.engine_process import OWNER_VARIABLE, engine_environment
from tests.actors.fakes import make_llama

CHILD = """
import sys, time
from actors.engine_process import end_with
end_with(int(sys.argv[1]))
print("watching", flush=True)
time.sleep(60)
"""

ACTOR = """
import asyncio, sys
from pathlib import Path
import psutil
from actors.config import ActorsConfig
from actors.vllm_engine import VllmEngine
from protocol.config import ModelConfig, WeightsConfig

async def main():
    config = ActorsConfig(group_size=2, concurrent_groups=1, max_tokens=8, kv_cache_gib=0.1)
    model = ModelConfig(path="tiny", max_context=64)
    engine = VllmEngine(Path(sys.argv[1]), model, config, WeightsConfig(), (1,), cores=[0])
    await engine.start()
    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    await asyncio.sleep(120)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_the_environment_is_put_back():
    before = dict(os.environ)
    with engine_environment([0, 1], "/somewhere"):
        assert os.environ["TMPDIR"] == "/somewhere"
        assert os.environ["OMP_NUM_THREADS"] == "2"
        assert os.environ[OWNER_VARIABLE] == str(os.getpid())
        os.environ["LD_PRELOAD"] = "something"
    assert dict(os.environ) == before


def test_a_process_ends_with_its_owner_although_the_owner_is_not_its_parent():
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(owner.pid)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "watching\n"
    owner.kill()
    owner.wait()
    assert child.wait(60) == -signal.SIGKILL
    child.stdout.close()


@pytest.mark.slow
def test_the_engine_dies_with_an_actor_that_is_killed(tmp_path):
    make_llama(tmp_path, tied=True)
    script = tmp_path / "actor.py"
    script.write_text(ACTOR)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    actor = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    children = []
    for pid in actor.stdout.readline().split():
        with contextlib.suppress(psutil.NoSuchProcess):  # What helped to start the engine may have ended.
            children.append(psutil.Process(int(pid)))
    assert children
    actor.send_signal(signal.SIGKILL)
    actor.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    actor.stdout.close()
    assert alive == []
