"""What one actor process is told when it is started. Imports neither torch nor vllm."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from actors.config import ActorsConfig
from protocol.config import ModelConfig, ScheduleConfig, Section, WeightsConfig
from protocol.core_loan import CoreLoan
from tasks.config import TaskConfig
from telemetry.config import TelemetryConfig


class RolloutSettings(Section):
    """Everything that one actor needs; the launcher fills it in, never a recipe."""

    name: str = Field(pattern=r"^(actor|eval)-\d+$")
    """Name under which the hub knows this actor, such as "actor-0", or the evaluator, "eval-0"."""
    hub_address: str
    """Where the hub listens, such as "tcp://127.0.0.1:5555"."""
    model_path: Path
    """Folder in transformers' format with the model and its tokenizer. Its weights are replaced by the learner's
    before the first token is generated."""
    model: ModelConfig
    """`[model]` of the run."""
    actors: ActorsConfig
    """`[actors]` of the run."""
    schedule: ScheduleConfig
    """`[schedule]` of the run."""
    weights: WeightsConfig
    """`[weights]` of the run."""
    task: TaskConfig
    """`[task]` of the run."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """`[telemetry]` of the run."""
    seed: int = 0
    """Seed of the sampling; actors of one run get different ones."""
    cores: list[int] | None = None
    """CPU cores of the engine, a thread on each. None leaves it to the system."""
    loan: CoreLoan | None = None
    """How engines and learner lend each other their cores. None: never."""
    run_dir: Path
    """The run's folder."""

    @property
    def label(self) -> str:
        """Its name and the run's, for what lies beside that of other runs."""
        return f"{self.run_dir.name}-{self.name}"

    @property
    def index(self) -> int:
        """The number in the name."""
        return int(self.name.rpartition("-")[2])

    @model_validator(mode="after")
    def _check(self) -> RolloutSettings:
        if self.actors.max_tokens >= self.model.max_context:
            raise ValueError(
                f"actors.max_tokens is {self.actors.max_tokens} with model.max_context {self.model.max_context}: "
                "expected less, to leave room for the prompt. Lower the one or raise the other"
            )
        if self.actors.engine == "scripted" and self.weights.transport != "zmq":
            raise ValueError(
                f'weights.transport is "{self.weights.transport}" with actors.engine "scripted", which takes weights '
                'by "zmq" only: set weights.transport = "zmq"'
            )
        if self.cores is not None and not self.cores:
            raise ValueError("cores is an empty list: expected at least one core, or None")
        return self
