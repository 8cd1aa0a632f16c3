"""What vLLM tells of itself at each decoding step, reduced to the two figures that Rapid shows. Imports vllm."""

from __future__ import annotations

from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import SchedulerStats


class EngineStats(PrometheusStatLogger):
    """The newest figures of the scheduler.

    A subclass of vLLM's Prometheus logger because vLLM adds that one wherever none of its kind is given; it would feed
    dozens of histograms at every decoding step, and none of its own machinery is wanted.
    """

    def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
        self.kv_cache_fraction = 0.0
        """Share of the key-value cache in use."""
        self.waiting = 0
        """Completions that wait for a place in a decoding step."""

    def record(self, scheduler_stats: SchedulerStats | None, *_: Any, **__: Any) -> None:
        """Called by vLLM after each decoding step."""
        if scheduler_stats is not None:
            self.kv_cache_fraction = scheduler_stats.kv_cache_usage
            self.waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs

    def log_engine_initialized(self) -> None:
        """Of no interest here."""

    def record_admission_rejection(self, reason: str) -> None:
        """Of no interest here."""

    def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None:
        """Of no interest here."""


def listen(llm: AsyncLLM) -> EngineStats:
    """The statistics of an engine that was made with `stat_loggers=[EngineStats]`. Call it before the first request."""
    assert llm.logger_manager is not None
    # The scheduler's figures come all the same; without this, vLLM would also time every token of every request.
    llm.log_stats = False
    return next(one for one in llm.logger_manager.stat_loggers if isinstance(one, EngineStats))
