"""How many groups a second one hub handles: `python -m bench.hub`. Prints a table, writes bench/results/hub.json.

The hub runs in a process of its own, with its ledger, memory store and real sockets; actors and a learner in this one.
A group makes the whole way: leased, submitted, pulled, committed. Times are of the hub's process alone, so that what
the other ends of the sockets cost does not count: CPU seconds (what one core can do), beside the seconds on the wall.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from buffer.config import BufferConfig
from buffer.service import Hub
from buffer.simulation import scripted_manifest
from protocol.config import ScheduleConfig
from protocol.endpoint import Client
from protocol.group import Group
from protocol.messages import Batch, Commit, Hello, Lease, Pull, Submit, Work, WorkItem
from protocol.version import PolicyVersion

RESULT = Path(__file__).parent / "results" / "hub.json"
BATCH_GROUPS = 64
STALENESS = 4
NUM_PROMPTS = 1_000_000


def serve_hub(pipe: Connection, steps: int) -> None:
    """The hub's process: sends its address, and at the end its CPU seconds."""
    asyncio.run(_serve_hub(pipe, steps))


async def _serve_hub(pipe: Connection, steps: int) -> None:
    schedule = ScheduleConfig(max_staleness=STALENESS, steps=steps)
    hub = Hub(BufferConfig(), schedule, BATCH_GROUPS, NUM_PROMPTS, 0, "tcp://127.0.0.1:*")
    begin, stop = _cpu_s(), asyncio.Event()
    pipe.send(hub.address)
    serving = asyncio.create_task(hub.serve(stop))
    await asyncio.to_thread(pipe.recv)
    pipe.send(_cpu_s() - begin)
    stop.set()
    await serving


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Bench:
    """Actors that submit as fast as they get leases, and a learner that commits as fast as it gets batches."""

    def __init__(self, address: str, steps: int, completions: int, tokens: int) -> None:
        self._address = address
        self._steps = steps
        self._version = PolicyVersion(1, 0)
        self._arrays = _make_arrays(completions, tokens)

    async def run(self, num_actors: int) -> None:
        """Until the learner has done its steps."""
        learner = Client(self._address)
        await learner.request(Hello(role="learner", name="learner"))
        await learner.request(scripted_manifest(self._version))
        actors = [asyncio.create_task(self._act(f"actor-{number}")) for number in range(num_actors)]
        while self._version.step < self._steps:
            batch = await learner.request(Pull(version=self._version, wait_s=30), 60)
            assert isinstance(batch, Batch)
            self._version = PolicyVersion(1, self._version.step + 1)
            await learner.request(Commit(batch_id=batch.batch_id, version=self._version))
            await learner.request(scripted_manifest(self._version))
        await asyncio.gather(*actors)
        await learner.close()

    async def _act(self, name: str) -> None:
        client = Client(self._address)
        await client.request(Hello(role="actor", name=name))
        while self._version.step < self._steps:
            work = await client.request(Lease(name=name, max_groups=16, version=self._version, wait_s=1), 60)
            assert isinstance(work, Work)
            await asyncio.gather(*(self._submit(client, item) for item in work.items))
        await client.close()

    async def _submit(self, client: Client, item: WorkItem) -> None:
        versions = len(self._arrays["span_lengths"])
        group = Group(
            entry_id=item.entry_id,
            span_incarnations=np.full(versions, self._version.incarnation, np.int32),
            span_steps=np.full(versions, self._version.step, np.int32),
            stop_reasons=["stop"] * len(self._arrays["lengths"]),
            **self._arrays,
        )
        await client.request(Submit(lease_id=item.lease_id, group=group), 60)


def _make_arrays(completions: int, tokens: int) -> dict[str, Any]:
    lengths = np.full(completions, tokens, np.int32)
    return {
        "prompt_token_ids": np.arange(50, dtype=np.int32),
        "token_ids": np.arange(completions * tokens, dtype=np.int32),
        "generator_logprobs": np.zeros(completions * tokens, np.float32),
        "lengths": lengths,
        "span_counts": np.ones(completions, np.int32),
        "span_lengths": lengths,
        "rewards": np.arange(completions, dtype=np.float32),
    }


def measure(steps: int, num_actors: int, completions: int, tokens: int) -> dict[str, Any]:
    """One configuration."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_hub, args=(theirs, steps), daemon=True)
    process.start()
    address, begin = ours.recv(), time.monotonic()
    asyncio.run(Bench(address, steps, completions, tokens).run(num_actors))
    wall_s = time.monotonic() - begin
    ours.send("end")
    cpu_s = ours.recv()
    process.join()
    groups = steps * BATCH_GROUPS
    return {
        "actors": num_actors,
        "completions": completions,
        "tokens_a_completion": tokens,
        "groups": groups,
        "wall_s": round(wall_s, 3),
        "hub_cpu_s": round(cpu_s, 3),
        "groups_a_cpu_second": round(groups / cpu_s),
        "groups_a_wall_second": round(groups / wall_s),
        "mbytes_a_cpu_second": round(groups * completions * tokens * 8 / 1e6 / cpu_s, 1),
    }


def main() -> None:
    """Measure small and large groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="batches of 64 groups to train on")
    steps = parser.parse_args().steps
    rows = [measure(steps, 1, 8, 16), measure(steps, 8, 8, 16), measure(steps, 8, 8, 512)]
    columns = list(rows[0])
    print("  ".join(columns))
    for row in rows:
        print("  ".join(f"{row[column]!s:>{len(column)}}" for column in columns))
    result = {"command": "python -m bench.hub", "machine": platform.processor() or platform.machine(), "rows": rows}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
