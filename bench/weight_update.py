"""How long a weight update stops generation: `python -m bench.weight_update --model PATH`.

vLLM decodes `--sequences` sequences, and gets new weights several times:

    load        seconds that loading alone takes: the same calls while no request is there
    stall       seconds without a new token around an update, less the time of an ordinary decoding step
    fetch       seconds to fetch the weights from a publisher while generation goes on

Prints a table and writes bench/results/weight_update.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.config import ActorsConfig
from actors.engine import GenerateRequest, WeightSnapshot
from actors.vllm_engine import VllmEngine
from actors.weights import WeightReceiver
from protocol.config import ModelConfig, WeightsConfig
from protocol.version import PolicyVersion

if TYPE_CHECKING:
    from bench.served_weights import GrantingHub

RESULT = Path(__file__).parent / "results" / "weight_update.json"
GROUP_SIZE = 8
CONTEXT = 512
_POLL_S = 0.001


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model in transformers' format")
    parser.add_argument("--sequences", type=int, default=64, help="sequences decoded at once")
    parser.add_argument("--updates", type=int, default=6, help="updates measured of each kind")
    parser.add_argument("--core", type=int, default=0, help="the core that the engine may use")
    options = parser.parse_args()
    row = asyncio.run(_measure(options))
    print("bytes       fetch s   load s   stall s   stall / load   step s")
    print(
        f"{row['bytes']:<11} {row['fetch_s']:<9} {row['load_s']:<8} {row['stall_s']:<9} {row['stall_to_load']:<14} "
        f"{row['step_s']}"
    )
    RESULT.parent.mkdir(exist_ok=True)
    command = f"python -m bench.weight_update --model PATH --sequences {options.sequences} --updates {options.updates}"
    machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    RESULT.write_text(json.dumps({"command": command, **machine, **row}, indent=1) + "\n")


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from bench.served_weights import GrantingHub, ServedWeights

    config = ActorsConfig(group_size=GROUP_SIZE, max_tokens=400, concurrent_groups=options.sequences // GROUP_SIZE)
    model = ModelConfig(path=str(options.model), max_context=CONTEXT)
    engine = VllmEngine(options.model, model, config, WeightsConfig(), (), cores=[options.core])
    weights = ServedWeights(options.model)
    publisher = GrantingHub(weights)
    bench = UpdateBench(engine, weights, publisher)
    await engine.start()
    try:
        return await bench.run(options)
    finally:
        await bench.close()
        await engine.close()
        await publisher.close()


class UpdateBench:
    """Updates one engine with ever new versions of the same weights."""

    def __init__(self, engine: VllmEngine, weights: Any, publisher: GrantingHub) -> None:
        self._engine, self._weights, self._publisher = engine, weights, publisher
        self._receiver = WeightReceiver(WeightsConfig(), "bench")
        self._fetching = asyncio.create_task(self._receiver.run())
        self._step = 0
        self._stamps: list[float] = []

    async def run(self, options: argparse.Namespace) -> dict[str, Any]:
        """One row of the table."""
        load_s = [await self._load(await self._fetch()) for _ in range(options.updates + 1)][1:]
        groups = [asyncio.create_task(self._generate(number)) for number in range(options.sequences // GROUP_SIZE)]
        watcher = asyncio.create_task(self._watch())
        await asyncio.sleep(3.0)
        fetch_s, stall_s, step_s = [], [], self._median_gap_s()
        for _ in range(options.updates):
            begin_s = time.monotonic()
            snapshot = await self._fetch()
            fetch_s.append(time.monotonic() - begin_s)
            begin_s = time.monotonic()
            await self._load(snapshot)
            await asyncio.sleep(4 * step_s)
            stall_s.append(self._longest_gap_s(begin_s) - step_s)
        for task in [watcher, *groups]:
            task.cancel()
        found = {"fetch_s": fetch_s, "load_s": load_s, "stall_s": stall_s}
        row = {name: round(statistics.median(values), 3) for name, values in found.items()}
        ratio = round(row["stall_s"] / row["load_s"], 2)
        return {"bytes": len(self._weights.data), **row, "stall_to_load": ratio, "step_s": round(step_s, 3)}

    async def close(self) -> None:
        """Stop fetching and remove its files."""
        self._fetching.cancel()
        await asyncio.gather(self._fetching, return_exceptions=True)
        await self._receiver.close()

    async def _fetch(self) -> WeightSnapshot:
        self._step += 1
        self._receiver.offer(self._weights.manifest(PolicyVersion(1, self._step), self._publisher.address))
        return await self._receiver.take()

    async def _load(self, snapshot: WeightSnapshot) -> float:
        await self._engine.load_weights(snapshot)
        self._receiver.release(snapshot)
        return self._engine.metrics.load_s

    async def _generate(self, number: int) -> None:
        prompt = np.arange(100 + number, 150 + number, dtype=np.int32)
        await self._engine.generate(GenerateRequest(f"0:{number}", prompt, GROUP_SIZE, 400, 1.0, 0))

    async def _watch(self) -> None:
        """Note each moment at which the number of tokens drawn has grown."""
        states = self._engine._engine.output_processor.request_states
        before = 0
        while True:
            drawn = sum(state.detokenizer.num_output_tokens() for state in states.values())
            if drawn != before:
                before = drawn
                self._stamps.append(time.monotonic())
            await asyncio.sleep(_POLL_S)

    def _median_gap_s(self) -> float:
        return float(np.median(np.diff(self._stamps)))

    def _longest_gap_s(self, since_s: float) -> float:
        stamps = [stamp for stamp in self._stamps if stamp > since_s - 1.0]
        return float(np.diff(stamps).max())


if __name__ == "__main__":
    main()
