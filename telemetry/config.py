"""Configuration of what a run tells about itself while it goes on."""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

LOOPBACK = "127.0.0.1"


class Section(BaseModel):
    """Base of the sections: unknown keys are errors, values do not change, docstrings describe fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TelemetryConfig(Section):
    """`[telemetry]`: metrics, logs and the terminal view."""

    exporter: bool = True
    """Whether hub, learner (its first rank, which speaks for all) and actors serve Prometheus metrics. Where each
    listens stands in the run's `exporters/`."""
    host: str = "auto"
    """Interface that the metrics are served on. "auto" takes the one over which a process reaches the run's hub:
    loopback on one machine, and on a cluster the address of its node. They carry no authentication: keep them on
    loopback or in a network that you trust."""
    port: int = Field(0, ge=0, le=65000)
    """Port of the hub's metrics; the learner's first rank takes port + 1, the launcher port + 2, an actor the first
    free one of its node from port + 100 on. 0 takes free ones."""
    stall_s: float = Field(120.0, gt=0)
    """Seconds without any progress after which the run counts as stalled and says who waits for what."""
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Least severity that the files in the run's `logs/` keep: "DEBUG", "INFO", "WARNING" or "ERROR"."""
    log_format: str = Field("text", pattern="^(text|json)$")
    """How the lines of the log files look: "text" for people, "json" for one JSON object a line."""
    timeline: bool = True
    """Whether every process writes down what it did when, into the run's `timeline/`. The report draws it."""
    samples_every: int = Field(5, ge=0)
    """Optimizer steps between two that leave samples of their groups in `samples.jsonl`; the first step is always one.
    0 keeps none."""
    samples_groups: int = Field(2, ge=1)
    """Groups kept of such a step, spread evenly over the batch: for each the prompt, its best and its worst
    completion."""
    trackers: list[Literal["tensorboard", "wandb"]] = Field(default=[])
    """Experiment trackers that the launcher hands every record to: "tensorboard", "wandb". Their packages are those of
    `requirements/trackers.txt`."""
    wandb_project: str = Field("rapid", min_length=1)
    """Project under which Weights & Biases files the run. Everything else is W&B's own environment, such as
    WANDB_API_KEY, WANDB_ENTITY and WANDB_MODE."""
    view: str = Field("auto", pattern="^(auto|live|plain|none)$")
    """"auto" is "live" on a terminal and "plain" elsewhere; "plain" prints one line an optimizer step."""
    view_refresh_s: float = Field(0.5, ge=0.05, le=60)
    """Seconds between two refreshes of the live view."""

    @field_validator("host")
    @classmethod
    def _refuse_wildcards(cls, value: str) -> str:
        return check_dialable(value, "Prometheus")

    def facing(self, hub_address: str) -> TelemetryConfig:
        """The same with `host` "auto" resolved, for a process that dials the hub at "tcp://HOST:PORT"."""
        return self if self.host != "auto" else self.model_copy(update={"host": own_host_towards(hub_address)})


def check_dialable(host: str, who: str) -> str:
    """The host itself. Raises ValueError where it stands for all addresses, none of which `who` could dial."""
    if host in ("0.0.0.0", "::", "*", ""):
        raise ValueError(
            f"{host!r} is all addresses of a machine, expected one that {who} can dial: take 'auto', or an address of "
            "this machine"
        )
    return host


def own_host_towards(address: str) -> str:
    """This machine's own address on the way to "tcp://HOST:PORT"; loopback if there is no way."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        family, kind, protocol, _, peer = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # Of a datagram socket, which sends nothing: the system only chooses the interface.
            probe.connect(peer)
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return LOOPBACK
