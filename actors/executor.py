"""vLLM's model executor as Rapid runs it: inside the engine process, bound to its cores, never outliving the actor."""

from __future__ import annotations

import os
from typing import Any

from vllm.v1.executor.uniproc_executor import UniProcExecutor

import actors.transfer  # noqa: F401  registers the weight transfer in this process
from actors.engine_process import CORES_VARIABLE, LOAN_VARIABLE, OWNER_VARIABLE, end_with
from actors.layers import take_kernels
from actors.sampler import OnePassSampler
from actors.threads import borrowed_threads
from protocol.core_loan import Borrower, CoreLoan


class ActorExecutor(UniProcExecutor):
    """One worker, in the process of the scheduler.

    vLLM puts a CPU worker into a third process, so that OpenMP finds its environment when it is loaded. The actor sets
    that environment before it starts the engine process, and so saves the third process, its start, and a hop
    between processes at each decoding step.
    """

    def _init_executor(self) -> None:
        end_with(int(os.environ[OWNER_VARIABLE]))
        if cores := os.environ.get(CORES_VARIABLE):
            os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
        super()._init_executor()
        self._threads: Borrower | None = None
        if self.vllm_config.device_config.device_type == "cpu":
            runner = self.driver_worker.worker.model_runner
            runner.sampler = OnePassSampler(runner.sampler.logprobs_mode)
            take_kernels(runner.model)
            if text := os.environ.get(LOAN_VARIABLE):
                loan = CoreLoan.model_validate_json(text)
                self._threads = borrowed_threads(loan) if loan.lent else None

    def execute_model(self, *arguments: Any, **options: Any) -> Any:
        """One step, on the cores that are there for it."""
        if self._threads is not None:
            self._threads.adjust()
        return super().execute_model(*arguments, **options)
