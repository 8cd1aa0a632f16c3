"""Configuration of the rollout actors (`[actors]`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from protocol.config import Section


class ScriptedConfig(Section):
    """`[actors.scripted]`: the deterministic engine that tests and schedule studies use in place of vLLM."""

    tokens_per_s: float = Field(0.0, ge=0)
    """Tokens a second that the engine pretends to generate, over all sequences. 0 generates without delay."""
    lengths: Literal["model", "uniform", "geometric"] = "model"
    """How long completions may become. "model": up to `actors.max_tokens`. "uniform": drawn evenly between
    `min_tokens` and `actors.max_tokens`. "geometric": `min_tokens` and a tail of mean `mean_tokens`, cut at
    `actors.max_tokens`. An end of sequence that the model draws ends a completion earlier in each case."""
    min_tokens: int = Field(1, ge=1)
    """Shortest length drawn, in tokens."""
    mean_tokens: float = Field(8.0, gt=0)
    """Mean of the geometric tail, in tokens."""


class ActorsConfig(Section):
    """`[actors]`: how many actors there are, what generates, and how it samples."""

    count: int = Field(1, ge=1)
    """Rollout actors, each a process with an engine of its own."""
    engine: Literal["vllm", "scripted"] = "vllm"
    """What generates: "vllm", or "scripted", a deterministic stand-in for tests."""
    group_size: int = Field(8, ge=1)
    """G, completions of one prompt."""
    max_tokens: int = Field(256, ge=1)
    """Longest completion, in tokens; shorter where the prompt leaves less of `model.max_context`."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature, applied by generator and trainer alike."""
    top_p: float = 1.0
    """Nucleus sampling; only 1 (off) is allowed."""
    top_k: int = -1
    """Top-k sampling; only -1 or 0 (off) is allowed."""
    concurrent_groups: int = Field(16, ge=1)
    """Groups whose sequences one actor decodes at once: `concurrent_groups * group_size` sequences."""
    lease_batch: int = Field(4, ge=0)
    """Groups leased beyond `concurrent_groups`, which wait in the engine and take the place of sequences that end
    early. 0 leaves such places empty until a whole group is done."""
    lease_wait_s: float = Field(5.0, ge=0)
    """Seconds that the hub may hold back its answer to a request for leases while it has none to give."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Memory of one engine's KV cache, in GiB."""
    block_tokens: int = Field(32, ge=16, multiple_of=16)
    """Tokens of one KV block. Completions of a group share the full blocks of their prompt only, so that small
    blocks share more of a short prompt. On the CPU a multiple of 32."""
    max_batched_tokens: int | None = Field(None, ge=16)
    """Most tokens of one forward pass, prompts included. None leaves the choice to the engine."""
    sleep_mode: bool = False
    """Whether a GPU engine gives its memory back while it sleeps (`alternate` on one set of devices)."""
    reward_workers: int = Field(1, ge=1)
    """Processes of one actor that compute rewards."""
    reward_timeout_s: float = Field(10.0, gt=0)
    """Seconds after which the reward of one completion is given up as failed."""
    heartbeat_s: float = Field(2.0, gt=0)
    """Seconds between two signs of life to the hub."""
    restarts: int = Field(3, ge=0)
    """How often an actor that died is started anew."""
    min: int = Field(1, ge=1)
    """Fewest actors. The run begins as soon as so many have a place, and no scaling goes below."""
    max: int | None = Field(None, ge=1)
    """Most actors that any scaling may reach. None lets `rapid scale` reach what the machines there are can hold, or
    more with --force."""
    scaling: Literal["fixed", "cluster", "advice"] = "fixed"
    """Who says how many actors there are. "fixed": `count`, until `rapid scale` says otherwise. "cluster": as many as
    the cluster has room for. "advice": as many as balance the learner by the rates measured, on which Ray's
    autoscaler acts. The latter two need `max`, and `rapid scale actors N` ends them until `rapid scale actors auto`."""
    settle_s: float = Field(90.0, ge=0)
    """Seconds after a change in which "advice" changes nothing again: until engines have started and weights have
    arrived, the rates measured say nothing of the new number. Longer for a model whose engine starts slowly."""
    leave_s: float = Field(30.0, ge=0)
    """Seconds that an actor which is to leave may take to finish its groups, before it hands them back."""
    cpus: float = Field(1.0, gt=0)
    """CPUs that one actor asks of a Ray cluster; a CPU engine runs as many threads. On one machine without a cluster
    the cores are divided among all parts instead."""
    gpus: float | None = Field(None, ge=0)
    """GPUs that one actor asks for; a fraction lets several share one. None gives all parts equal shares of the GPUs
    that are there when the run starts, so that a cluster which grows needs a number."""
    resource: str | None = None
    """Ray resource that the cluster's nodes for actors offer, such as "actor"; each actor then takes 0.001 of it, so
    that actors run on these nodes only. None lets them run anywhere."""
    scripted: ScriptedConfig = ScriptedConfig()
    """The scripted engine."""

    @field_validator("top_p")
    @classmethod
    def _refuse_nucleus(cls, value: float) -> float:
        if value != 1.0:
            raise ValueError(
                f"actors.top_p must be 1 (off), got {value}: the engine's log-probabilities would be of the truncated "
                "distribution and the trainer's of the full one, so that every importance weight is wrong by the "
                "mass kept. Remove top_p, and lower actors.temperature for a sharper distribution"
            )
        return value

    @field_validator("top_k")
    @classmethod
    def _refuse_top_k(cls, value: int) -> int:
        if value not in (-1, 0):
            raise ValueError(
                f"actors.top_k must be -1 (off), got {value}: the engine's log-probabilities would be of the truncated "
                "distribution and the trainer's of the full one, so that every importance weight is wrong by the "
                "mass kept. Remove top_k, and lower actors.temperature for a sharper distribution"
            )
        return value

    @model_validator(mode="after")
    def _check_bounds(self) -> ActorsConfig:
        if self.scaling != "fixed" and self.max is None:
            raise ValueError(
                f'actors.scaling = "{self.scaling}" without actors.max: expected the most actors that there may be, '
                "since a cluster may grow without end; set actors.max"
            )
        most = self.max if self.max is not None else self.count
        if not self.min <= self.count <= most:
            raise ValueError(
                f"actors.count = {self.count}: expected from actors.min = {self.min} to actors.max = {self.max}; "
                "change one of them"
            )
        return self

    @property
    def max_sequences(self) -> int:
        """Sequences that one engine decodes at once."""
        return self.concurrent_groups * self.group_size
