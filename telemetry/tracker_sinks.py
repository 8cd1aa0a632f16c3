"""What writes to one experiment tracker each. Their packages are optional, and imported when a sink is made."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Protocol

from telemetry.config import TelemetryConfig
from telemetry.errors import TrackerError
from telemetry.record import Record
from telemetry.run_dir import write_atomically

_WANDB_START_S, _WANDB_END_S = 60, 30


class Sink(Protocol):
    """One tracker of one run, used from one thread. Any error of any call leaves it out of the run."""

    package: ClassVar[str]
    """What must be installed."""

    def __init__(self, run_path: Path, config: Mapping[str, Any], telemetry: TelemetryConfig) -> None: ...

    @staticmethod
    def check() -> None:
        """Raises TrackerError for what would fail later, such as a login that is missing."""

    def write(self, record: Record, values: Mapping[str, float]) -> None:
        """Keep these values, by dotted names, of the record's step."""

    def close(self) -> None:
        """Finish."""


class TensorBoardSink:
    """Event files in the run's `tensorboard/`; a resumed run hides the steps that it repeats."""

    package: ClassVar[str] = "tensorboard"

    def __init__(self, run_path: Path, config: Mapping[str, Any], telemetry: TelemetryConfig) -> None:
        self._folder = run_path / "tensorboard"
        self._config = config
        self._writer: Any = None

    @staticmethod
    def check() -> None:
        """Nothing but the package is needed."""

    def write(self, record: Record, values: Mapping[str, float]) -> None:
        """As `Sink.write`. TensorBoard sorts into sections by what stands before the slash."""
        step = record["step"]
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            is_resumed = record["incarnation"] > 1
            self._writer = SummaryWriter(str(self._folder), purge_step=step if is_resumed else None, flush_secs=10)
            self._writer.add_text("config", f"```json\n{json.dumps(self._config, indent=2)}\n```", step)
        for name, value in values.items():
            section, _, key = name.rpartition(".")
            self._writer.add_scalar(f"{section}/{key}", value, step)

    def close(self) -> None:
        """Write what is pending."""
        if self._writer is not None:
            self._writer.close()


class WandbSink:
    """A run at Weights & Biases, or with WANDB_MODE=offline in the run's `wandb/`, to be sent by `wandb sync`.

    Curves are drawn over `rapid.learner.step`: W&B's own count of steps may not go back, as a resumed run does.
    """

    package: ClassVar[str] = "wandb"

    def __init__(self, run_path: Path, config: Mapping[str, Any], telemetry: TelemetryConfig) -> None:
        import wandb

        self._run = wandb.init(
            project=telemetry.wandb_project,
            name=run_path.name,
            id=_remember_id(run_path / "wandb" / "run-id.json"),
            resume="allow",
            dir=str(run_path),
            config=dict(config),
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=_WANDB_START_S, finish_timeout=_WANDB_END_S
            ),
        )
        self._run.define_metric("*", step_metric="rapid.learner.step")

    @staticmethod
    def check() -> None:
        """Raises TrackerError where W&B would ask for a key on the terminal."""
        import wandb

        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise TrackerError(
                'telemetry.trackers names "wandb", and there is no login: set WANDB_API_KEY or call `wandb login`, or '
                "set WANDB_MODE=offline to keep the run on disk and send it later with `wandb sync`"
            )

    def write(self, record: Record, values: Mapping[str, float]) -> None:
        """As `Sink.write`."""
        # W&B reads dots as nesting, and would not find the step under a name that has them.
        nested: dict[str, Any] = {}
        for name, value in values.items():
            *path, key = name.split(".")
            reduce(lambda level, part: level.setdefault(part, {}), path, nested)[key] = value
        self._run.log(nested)

    def close(self) -> None:
        """Send what is pending."""
        self._run.finish()


def _remember_id(path: Path) -> str:
    """The run's id at W&B: the same after each resume, and another for each run, whatever its name."""
    try:
        return str(json.loads(path.read_text())["id"])
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        run_id = uuid.uuid4().hex[:12]
        write_atomically(path, json.dumps({"id": run_id}) + "\n")
        return run_id


SINKS: dict[str, type[Sink]] = {"tensorboard": TensorBoardSink, "wandb": WandbSink}
"""By the names that `telemetry.trackers` knows."""
