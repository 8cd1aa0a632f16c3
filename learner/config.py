"""Configuration of the learner (`[learner]`) and of the loss (`[algorithm]`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from protocol.config import Section

LossName = Literal["rapid", "policy_gradient", "grpo"]
WeightLevel = Literal["sequence", "token", "length_normalised"]
Baseline = Literal["weighted", "plain", "leave_one_out", "self_normalised"]
AdvantageScale = Literal["none", "std"]
LrDecay = Literal["none", "linear", "cosine"]
Normaliser = Literal["completion", "length", "tokens", "constant"]


def _read_none(value: Any) -> Any:
    return None if value == "none" else value


# TOML has no null, so a recipe that wants None in place of another default writes the word.
NoneByName = BeforeValidator(_read_none)

_READ_BY = {
    "weight_level": ("rapid",),
    "weight_clip": ("rapid",),
    "clip_low": ("grpo",),
    "clip_high": ("grpo",),
}


class LearnerConfig(Section):
    """`[learner]`: the trainer, its optimizer, its memory and its checkpoints."""

    ranks: int = Field(1, ge=1)
    """Trainer processes that share one batch; must divide `batch_groups`."""
    batch_groups: int = Field(24, ge=1)
    """B, groups in the batch of one optimizer step, over all ranks."""
    lr: float = Field(2e-5, gt=0)
    """Learning rate of AdamW after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the learning rate rises linearly from lr / warmup_steps to lr; 0 means none."""
    lr_decay: LrDecay = "none"
    """How the learning rate falls after the warm-up, from lr towards `lr_end` times lr behind the last of
    `schedule.steps`: "linear", along half a "cosine", or not at all. A resume with more steps stretches it."""
    lr_end: float = Field(0.0, ge=0, le=1)
    """Where the decay of the learning rate ends, as a share of lr. Read with `lr_decay` "linear" and "cosine"."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the two moments, each in [0, 1)."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's addend to the denominator."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay, per step and times lr."""
    grad_clip: Annotated[float | None, NoneByName] = Field(1.0, gt=0)
    """Largest global norm of the gradient of a step. None, in a recipe "none", does not clip."""
    zero_stage: int = Field(0, ge=0, le=3)
    """DeepSpeed ZeRO stage: 0 keeps everything on each rank, 1 splits optimizer states, 2 gradients too, 3 also
    parameters."""
    micro_batch_tokens: int = Field(2048, ge=16)
    """Token positions, padding included, of one forward pass on one rank. A single group larger than this makes a
    micro-batch of its own."""
    row_layout: Literal["auto", "shared", "plain"] = "auto"
    """How completions lie in rows. "shared": completions of a group follow one copy of their prompt. "plain": one
    completion a row. "auto": shared where the model takes the mask for it, and cheaper."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, about a third more time."""
    entropy: bool = False
    """Whether the policy's entropy at every completion token is measured."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of one rank, and the CPUs that it asks of a Ray cluster. None leaves the choice to torch, and asks
    for one."""
    gpus: float | None = Field(None, ge=0)
    """GPUs that one rank asks for; None as of `actors.gpus`."""
    resource: str | None = None
    """Ray resource that the cluster's nodes for the learner offer, such as "learner"; each rank then takes 0.001 of it,
    so that the learner runs on these nodes only. None lets it run anywhere."""
    checkpoint_every: int = Field(50, ge=1)
    """Optimizer steps between two checkpoints; the last step is always kept."""
    keep_checkpoints: Annotated[int | None, NoneByName] = Field(2, ge=1)
    """Newest checkpoints kept on disk. None, in a recipe "none", keeps all."""
    snapshot_every: int | None = Field(None, ge=1)
    """Optimizer steps between two snapshots of the weights, for `rapid eval RUN --snapshots`; the first and the last
    weights are kept too. None keeps none."""

    @model_validator(mode="after")
    def _check(self) -> LearnerConfig:
        if self.batch_groups % self.ranks:
            raise ValueError(
                f"learner.batch_groups is {self.batch_groups}, expected a multiple of learner.ranks "
                f"({self.ranks}): take {_next_multiple(self.batch_groups, self.ranks)}, or fewer ranks"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(
                f"learner.betas is {list(self.betas)}, expected two numbers in [0, 1), such as [0.9, 0.999]"
            )
        return self


class AlgorithmConfig(Section):
    """`[algorithm]`: the loss. The field names are the keywords of `learner.losses.policy_loss`."""

    loss: LossName = "rapid"
    """"rapid": policy gradient with truncated importance weights. "policy_gradient": the same with all weights 1.
    "grpo": the clipped surrogate of PPO and GRPO, per token."""
    weight_level: WeightLevel = "sequence"
    """What an importance weight belongs to: "sequence" π(y|x)/μ(y|x); "token" the ratio of each token;
    "length_normalised" the sequence ratio to the power 1/length. Read by "rapid"."""
    weight_clip: Annotated[float | None, NoneByName] = Field(2.0, gt=0)
    """Upper truncation of the importance weights. None, in a recipe "none", does not
    truncate. Read by "rapid"."""
    baseline: Baseline = "weighted"
    """What is taken from a reward, over the G completions of its group: "weighted" mean of weight·reward, "plain"
    mean of rewards, "leave_one_out" mean of weight·reward of the others, "self_normalised" weighted mean divided
    by the mean weight."""
    advantage_scale: AdvantageScale = "none"
    """"std" divides advantages by the standard deviation of the rewards of their group; "none" does not."""
    normaliser: Normaliser = "completion"
    """What divides the sum over tokens: "completion" nothing but the number of completions, "length" each
    completion's own length, "tokens" the number of tokens of the batch (then not the number of completions),
    "constant" `normaliser_tokens`."""
    normaliser_tokens: int | None = Field(None, ge=1)
    """Tokens by which the sum over a completion is divided with normaliser "constant". None with all others."""
    clip_low: float = Field(0.2, ge=0, lt=1)
    """ε, a token's ratio is clipped below 1 − ε. Read by "grpo"."""
    clip_high: float = Field(0.2, ge=0)
    """ε', a token's ratio is clipped above 1 + ε'. Read by "grpo"."""

    @model_validator(mode="after")
    def _check(self) -> AlgorithmConfig:
        for name, readers in _READ_BY.items():
            # A resolved configuration names every field, so only a value other than the default is a mistake.
            if self.loss not in readers and getattr(self, name) != AlgorithmConfig.model_fields[name].default:
                raise ValueError(
                    f"algorithm.{name} is {getattr(self, name)!r}, but loss {self.loss!r} does not read it: "
                    f"remove it, or take loss {readers[0]!r}"
                )
        if (self.normaliser == "constant") != (self.normaliser_tokens is not None):
            raise ValueError(
                f"algorithm.normaliser is {self.normaliser!r} and algorithm.normaliser_tokens is "
                f"{self.normaliser_tokens}: expected a number with 'constant', and none with all others"
            )
        return self

    @property
    def ratio_level(self) -> WeightLevel:
        """The level at which this loss uses ratios, hence at which they are diagnosed."""
        return "token" if self.loss == "grpo" else self.weight_level

    @property
    def ratio_bounds(self) -> tuple[float | None, float | None]:
        """Lower and upper bound beyond which this loss clips a ratio; None means no bound."""
        if self.loss == "grpo":
            return 1 - self.clip_low, 1 + self.clip_high
        return None, (self.weight_clip if self.loss == "rapid" else None)


def _next_multiple(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor
