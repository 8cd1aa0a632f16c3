"""What one learner process is told when it is started. Imports neither torch nor deepspeed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from learner.config import AlgorithmConfig, LearnerConfig
from protocol.config import ModelConfig, ScheduleConfig, Section, WeightsConfig
from protocol.core_loan import CoreLoan
from protocol.version import Lineage
from telemetry.config import TelemetryConfig

# Environment of a learner's process, to be set before it starts. glibc otherwise hands the memory of every large tensor
# back to the system and has it zeroed again a moment later: 0.6-2.0 s of a 9.5 s step, measured, and 0.1 s with these.
PROCESS_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
}


class LearnerSettings(Section):
    """Everything that one rank of the learner needs; the launcher fills it in, never a recipe."""

    name: str = "learner"
    """Name under which the hub knows the learner."""
    hub_address: str
    """Where the hub listens, such as "tcp://127.0.0.1:5555"."""
    model_path: str
    """Folder in transformers' format with the weights at the start of the run, and with the tokenizer."""
    model: ModelConfig
    """`[model]` of the run."""
    learner: LearnerConfig
    """`[learner]` of the run."""
    algorithm: AlgorithmConfig
    """`[algorithm]` of the run."""
    schedule: ScheduleConfig
    """`[schedule]` of the run."""
    weights: WeightsConfig
    """`[weights]` of the run."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """`[telemetry]` of the run."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the actors, by which the trainer's logits are divided too."""
    group_size: int = Field(8, ge=1)
    """G, completions of a group."""
    seed: int = 0
    """Seed of the trainer's random numbers."""
    rank: int = Field(0, ge=0)
    """This process, from 0."""
    world_size: int = Field(1, ge=1)
    """Processes of the learner."""
    master_address: str = "127.0.0.1"
    """Host of rank 0, where the ranks meet. Not used by a single rank."""
    master_port: int = Field(0, ge=0, le=65535)
    """Port at which the ranks meet. Not used by a single rank."""
    publish_host: str = "127.0.0.1"
    """Interface on which weights are served."""
    weight_receivers: int = Field(1, ge=1)
    """GPU processes of all actors together, which form one group with the learner. Read by the "nccl" transport."""
    run_dir: Path
    """The run's folder."""
    resume_from: Path | None = None
    """Checkpoint folder to go on from. None begins with the weights of `model_path`."""
    lineage: Lineage = Field(default_factory=Lineage)
    """Where each incarnation branched off, the present one included: `ResumePoint.lineage` after a resume."""
    cores: list[int] | None = None
    """CPU cores that this process may use. None leaves it to the system."""
    loan: CoreLoan | None = None
    """How the learner and the engines lend each other their cores; rank 0 notes that it waits. None: never."""
    eval_wait_s: float | None = Field(None, ge=0)
    """Seconds for which the end waits for the evaluation of the last weights. None: the run has no evaluator."""

    @model_validator(mode="after")
    def _check(self) -> LearnerSettings:
        if self.rank >= self.world_size or self.world_size != self.learner.ranks:
            raise ValueError(
                f"rank {self.rank} of world_size {self.world_size} with learner.ranks {self.learner.ranks}: "
                f"expected rank < world_size = learner.ranks"
            )
        if self.world_size > 1 and self.master_port == 0:
            raise ValueError(
                f"world_size is {self.world_size} and master_port 0: expected a free port of rank 0's host"
            )
        if self.world_size > 1 and self.weights.transport != "zmq":
            # vLLM's engines make every trainer rank meet after each transfer, and rank 0 alone would be there.
            raise ValueError(
                f"weights.transport is {self.weights.transport!r} with learner.ranks {self.world_size}: "
                'expected 1 rank, or transport "zmq"'
            )
        if (self.resume_from is None) != (self.lineage.incarnation == 1):
            raise ValueError(
                f"resume_from is {self.resume_from} with incarnation {self.lineage.incarnation}: "
                "expected a checkpoint exactly when the incarnation is above 1"
            )
        return self
