"""What an actor does and has done: for its heartbeats, its metrics, and whoever asks why nothing happens."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from actors.engine import Completion, EngineMetrics
from telemetry import catalogue
from telemetry.exporter import Exporter

_RATE_WINDOW_S = 20.0


class Activity:
    """Counts, rates and the share of time in which the engine had something to do."""

    def __init__(self, exporter: Exporter, now: Callable[[], float] = time.monotonic) -> None:
        self._exporter, self._now = exporter, now
        self._started_s = now()
        self._samples: deque[tuple[float, int, float]] = deque([(self._started_s, 0, 0.0)])
        self._busy_s, self._busy_since_s = 0.0, None
        self._idle_counted_s = 0.0
        self._reported_tokens = self._reported_bytes = 0
        self.on_change: Callable[[], None] = lambda: None
        """Called when the engine gets its first group, and when it has lost its last."""
        self.num_generating = 0
        """Groups in the engine."""
        self.groups_void = 0
        """Groups that the hub refused because their lease had run out."""

    def begin_generating(self) -> None:
        """A group goes into the engine."""
        if self.num_generating == 0:
            self._busy_since_s = self._now()
        self.num_generating += 1
        if self.num_generating == 1:
            self.on_change()

    def end_generating(self) -> None:
        """It has left the engine."""
        self.num_generating -= 1
        if self.num_generating == 0 and self._busy_since_s is not None:
            self._busy_s += self._now() - self._busy_since_s
            self._busy_since_s = None
            self.on_change()

    def count_completions(self, completions: Sequence[Completion]) -> None:
        """Completions came out of the engine."""
        for completion in completions:
            self._exporter.observe(catalogue.ACTOR_COMPLETION_TOKENS, len(completion.token_ids))
            if completion.stop_reason == "length":
                self._exporter.inc(catalogue.ACTOR_TRUNCATED)

    def count_submitted(self) -> None:
        """The hub took a group."""
        self._exporter.inc(catalogue.ACTOR_GROUPS)

    def count_failed(self) -> None:
        """A lease went back as failed."""
        self._exporter.inc(catalogue.ACTOR_GROUPS_FAILED)

    def count_load(self, fetch_s: float, stall_s: float) -> None:
        """New weights were fetched, and loaded."""
        self._exporter.observe(catalogue.ACTOR_WEIGHT_FETCH, fetch_s)
        self._exporter.observe(catalogue.ACTOR_STALL, stall_s)
        self._exporter.set(catalogue.ACTOR_LOADED, time.time())

    def count_reward(self, seconds: float, failures: int) -> None:
        """A group has its rewards, or a completion of it has failed."""
        self._exporter.inc(catalogue.ACTOR_REWARD_FAILURES, failures)
        self._exporter.observe(catalogue.ACTOR_REWARD, seconds)

    def measure(self, engine: EngineMetrics, fetched_bytes: int, step: int | None) -> dict[str, float]:
        """Bring the exporter up to date; returns what a heartbeat carries, by catalogue name."""
        now_s = self._now()
        busy_s = self._busy_s + (now_s - self._busy_since_s if self._busy_since_s is not None else 0.0)
        self._samples.append((now_s, engine.generated_tokens, busy_s))
        while len(self._samples) > 2 and now_s - self._samples[0][0] > _RATE_WINDOW_S:
            self._samples.popleft()
        then_s, tokens_then, busy_then_s = self._samples[0]
        elapsed_s = max(now_s - then_s, 1e-9)
        values = {
            catalogue.ACTOR_TOKEN_RATE: (engine.generated_tokens - tokens_then) / elapsed_s,
            catalogue.ACTOR_BUSY: (busy_s - busy_then_s) / elapsed_s,
            catalogue.ACTOR_RUNNING: float(engine.active_sequences),
        }
        for metric, value in values.items():
            self._exporter.set(metric, value)
        self._exporter.set(catalogue.ACTOR_WAITING, engine.waiting_sequences)
        self._exporter.set(catalogue.ACTOR_KV_CACHE, engine.kv_cache_fraction)
        self._exporter.set(catalogue.ACTOR_VERSION, step)
        self._exporter.inc(catalogue.ACTOR_TOKENS, engine.generated_tokens - self._reported_tokens)
        self._exporter.inc(catalogue.ACTOR_WEIGHT_BYTES, fetched_bytes - self._reported_bytes)
        self._reported_tokens, self._reported_bytes = engine.generated_tokens, fetched_bytes
        return {metric.name: value for metric, value in values.items()}
