"""Configuration of the buffer."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from protocol.config import Section


class Sampler(StrEnum):
    """Which buffered groups make the next batch."""

    FIFO = "fifo"
    LAG_WEIGHTED = "lag_weighted"


class StalePolicy(StrEnum):
    """What becomes of a group whose lag exceeds the bound."""

    REQUEUE = "requeue"
    DROP = "drop"


class BufferConfig(Section):
    """`[buffer]`: which prompts are generated, and which groups are trained on."""

    epochs: int | None = Field(None, ge=1)
    """How often every prompt is used. None goes on until `schedule.steps` are done."""
    shuffle: bool = True
    """Whether each epoch has an order of its own, drawn from `run.seed` and the number of the epoch."""
    sampler: Sampler = Sampler.FIFO
    """"fifo" takes the oldest weights first, then the ledger's order; "lag_weighted" draws at random, a group
    of lag l with weight lag_decay^l. Neither takes a group beyond `schedule.max_staleness`."""
    lag_decay: float = Field(0.5, gt=0, le=1)
    """Weight of a group relative to one that is fresher by one step; used by "lag_weighted" alone."""
    stale_policy: StalePolicy = StalePolicy.REQUEUE
    """"requeue" generates the prompt of a group beyond the bound once more, "drop" gives it up. Both are counted."""
    filter_zero_signal: bool = True
    """Whether a group whose rewards are all equal is filtered, since its completions do not differ in worth. Its
    advantages are zero on-policy, but not on stale tokens with the baselines "weighted" and "leave_one_out", and a KL
    or entropy term would train on it, too."""
    max_attempts: int = Field(3, ge=1)
    """Failed attempts after which a prompt becomes a dead letter."""
    lease_s: float = Field(120.0, gt=0)
    """Seconds without a heartbeat after which a lease expires and its prompt goes to somebody else."""
    client_timeout_s: float = Field(30.0, gt=0)
    """Seconds of silence after which an actor is taken for dead and its leases return."""
    state_interval_s: float = Field(5.0, gt=0)
    """Seconds between two writings of `ledger/state.json` in the run's folder."""
    port: int = Field(0, ge=0, le=65535)
    """Port of the hub; 0 takes a free one."""
