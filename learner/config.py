"""Configuration of the learner (`[learner]`) and of the loss (`[algorithm]`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from learner.presets import PRESETS, describe_preset
from protocol.config import Section
from protocol.spelling import nearest_name

LossName = Literal[
    "rapid",
    "policy_gradient",
    "grpo",
    "ppo",
    "gspo",
    "cispo",
    "tis",
    "icepop",
    "decoupled_ppo",
    "m2po",
    "sft",
]
WeightLevel = Literal["sequence", "token", "length_normalised"]
Baseline = Literal["weighted", "plain", "leave_one_out", "self_normalised", "none"]
AdvantageScale = Literal["none", "std"]
LrDecay = Literal["none", "linear", "cosine"]
Normaliser = Literal["completion", "length", "tokens", "constant"]


def _read_none(value: Any) -> Any:
    return None if value == "none" else value


# TOML has no null, so a recipe that wants None in place of another default writes the word.
NoneByName = BeforeValidator(_read_none)

_ANCHORED = ("decoupled_ppo", "tis", "icepop")
_TRUNCATED = ("rapid", "cispo", "tis")
_READ_BY: dict[str, tuple[str, ...]] = {
    "weight_level": ("rapid",),
    "weight_clip": _TRUNCATED,
    "weight_clip_low": _TRUNCATED,
    "clip_lag_factor": _TRUNCATED,
    "clip_low": ("grpo", "ppo", "gspo", *_ANCHORED),
    "clip_high": ("grpo", "ppo", "gspo", *_ANCHORED),
    "mask_low": ("icepop", "decoupled_ppo"),
    "mask_high": ("icepop", "decoupled_ppo"),
    "proximal": _ANCHORED,
    "proximal_lag": _ANCHORED,
    "m2_threshold": ("m2po",),
    "sft_reward": ("sft",),
}
_OWN_DEFAULTS: dict[str, dict[str, float]] = {
    "gspo": {"clip_low": 3e-4, "clip_high": 4e-4},
    "icepop": {"mask_low": 0.5},
}
# What the learner alone reads, before it calls the loss.
_LEARNER_READS = ("proximal", "proximal_lag", "m2_threshold")


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
    gradient_cosine_every: int | None = Field(None, ge=1)
    """Optimizer steps between two measurements of the cosine between the gradients of the fresher and of the staler
    half of a batch: two more backward passes, and two more gradients in float32, at each. Not with ZeRO 3. None
    measures none."""
    threads: Annotated[int | None, NoneByName] = Field(None, ge=1)
    """CPU threads of one rank on cores of its own, and the CPUs that it asks of a Ray cluster. None, in a recipe
    "none", takes the cores that one machine's plan gives it, and asks a cluster for one."""
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
        if self.gradient_cosine_every is not None and self.zero_stage == 3:
            raise ValueError(
                f"learner.gradient_cosine_every is {self.gradient_cosine_every} with learner.zero_stage 3, where no "
                "rank has a whole gradient: take zero_stage 0, 1 or 2, or leave it out"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(
                f"learner.betas is {list(self.betas)}, expected two numbers in [0, 1), such as [0.9, 0.999]"
            )
        return self


class AlgorithmConfig(Section):
    """`[algorithm]`: the loss. docs/algorithm.md has the formulas, and familiar methods by their switches."""

    loss: LossName = "rapid"
    """"rapid": policy gradient with truncated importance weights. "policy_gradient": the same with all weights 1.
    "grpo", "ppo": the clipped surrogate, per token; "gspo": per sequence. "cispo", "tis": truncated weights per token,
    "icepop": masked ones. "decoupled_ppo": the surrogate around a proximal policy. "m2po": masked by the second moment.
    "sft": likelihood of the completions with full reward. It chooses the surrogate alone: baseline, scale and
    normaliser are switches of their own."""
    weight_level: WeightLevel = "sequence"
    """What an importance weight belongs to: "sequence" π(y|x)/μ(y|x); "token" the ratio of each token;
    "length_normalised" the sequence ratio to the power 1/length. Read by "rapid"."""
    weight_clip: Annotated[float | None, NoneByName] = Field(2.0, gt=0)
    """Upper truncation of the importance weights. None, in a recipe "none", does not
    truncate. Read by "rapid", "cispo" and "tis"."""
    weight_clip_low: Annotated[float | None, NoneByName] = Field(None, gt=0)
    """Lower truncation of the importance weights. None, in a recipe "none", does not truncate. Read as weight_clip."""
    clip_lag_factor: float = Field(1.0, gt=0)
    """f: at lag l the weights are clipped at 1 + (weight_clip − 1)·f^l and at 1 − (1 − weight_clip_low)·f^l, so that
    below 1 the clip is tighter for older tokens. 1 is the same clip at any lag. Read as weight_clip."""
    baseline: Baseline = "weighted"
    """What is taken from a reward, over the G completions of its group: "weighted" mean of weight·reward, "plain"
    mean of rewards, "leave_one_out" mean of weight·reward of the others, "self_normalised" weighted mean divided
    by the mean weight, "none" nothing. Off-policy "weighted" wants `buffer.filter_zero_signal`. Not read by "sft"."""
    advantage_scale: AdvantageScale = "none"
    """"std" divides advantages by the standard deviation of the rewards of their group, before a penalty "k1"; "none"
    does not. Not read by "sft"."""
    normaliser: Normaliser = "completion"
    """What divides the sum over tokens: "completion" nothing but the number of completions, "length" each
    completion's own length, "tokens" the number of tokens of the batch (then not the number of completions),
    "constant" `normaliser_tokens`."""
    normaliser_tokens: int | None = Field(None, ge=1)
    """Tokens by which the sum over a completion is divided with normaliser "constant". None with all others."""
    clip_low: float = Field(0.2, ge=0, le=1)
    """ε, a ratio is clipped below 1 − ε; left out, 0.0003 with "gspo". Read by "grpo", "ppo", "gspo", and, with a
    `proximal` policy, by "decoupled_ppo", "tis" and "icepop"."""
    clip_high: float = Field(0.2, ge=0)
    """ε', a ratio is clipped above 1 + ε'; left out, 0.0004 with "gspo". Read as clip_low."""
    mask_low: Annotated[float | None, NoneByName] = Field(None, gt=0)
    """A token whose ratio to the generator is below has no gradient; left out, 0.5 with "icepop". None, in a recipe
    "none", is no bound. Read by "icepop" and "decoupled_ppo"."""
    mask_high: Annotated[float | None, NoneByName] = Field(5.0, gt=0)
    """A token whose ratio to the generator is above has no gradient. None, in a recipe "none", is no bound. Read by
    "icepop" and "decoupled_ppo"."""
    proximal: Literal["none", "recomputed", "interpolated"] = "none"
    """The policy around which the surrogate is clipped. "none": the one that trains, so that no clip acts.
    "recomputed": that of the last broadcast, by a forward pass with a copy of its weights. "interpolated": between
    generator and trainer by the token's lag, without one. Both want `schedule.broadcast_every` of at least 2, or
    "interpolated" a `proximal_lag`. Read by "decoupled_ppo", which needs one, "tis" and "icepop"."""
    proximal_lag: int | None = Field(None, ge=1)
    """Optimizer steps that the interpolated proximal policy lies behind the one that trains. None follows the last
    broadcast. Read with proximal "interpolated"."""
    m2_threshold: float = Field(0.04, gt=0)
    """Largest mean of (log π/μ)² over the tokens that the update moves further away. Read by "m2po"."""
    sft_reward: float = 1.0
    """Least reward of a completion that is learned from. Read by "sft"."""
    kl_coefficient: float = Field(0.0, ge=0)
    """β, weight of the KL divergence from the model that the run began with, in nats. 0 has no such term; more keeps a
    copy of that model's weights, and takes one more forward pass a step."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Its estimator. "k1", log π/π_ref summed over a completion, is taken from the reward; "k2", half its square, and
    "k3" of GRPO are terms of each token. Read with a kl_coefficient."""
    entropy_coefficient: float = Field(0.0, ge=0)
    """Weight of the policy's entropy at each token, in nats, which the loss rewards. 0 has no such term."""

    @model_validator(mode="before")
    @classmethod
    def _fill_own_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        own = _OWN_DEFAULTS.get(values["loss"], {}) if isinstance(values.get("loss"), str) else {}
        return {**own, **values}

    @field_validator("loss", mode="before")
    @classmethod
    def _refuse_presets(cls, value: Any) -> Any:
        losses = get_args(LossName)
        if not isinstance(value, str) or value in losses:
            return value
        # Presets compete with losses, lest a misspelt one is taken for a loss that it is not.
        near = nearest_name(value, (*PRESETS, *losses))
        if near is None or near in losses:
            return value
        question = " but" if near == value else f"; did you mean {near!r}? It is"
        raise ValueError(f"not a loss{question} a preset of switches: write {describe_preset(near)}")

    @model_validator(mode="after")
    def _check(self) -> AlgorithmConfig:
        for problem in (*self._unread(), *self._impossible()):
            raise ValueError(problem)
        return self

    def _unread(self) -> Iterator[str]:
        """Switches that have no effect. A resolved configuration names all, so only a value of its own is a mistake."""
        own = _OWN_DEFAULTS.get(self.loss, {})
        changed = {
            name
            for name, field in AlgorithmConfig.model_fields.items()
            if getattr(self, name) != own.get(name, field.default)
        }
        for name, readers in _READ_BY.items():
            if name in changed and self.loss not in readers:
                yield (
                    f"algorithm.{name} is {getattr(self, name)!r}, but loss {self.loss!r} does not read it: "
                    f"remove it, or take loss {readers[0]!r}"
                )
        for name in sorted(changed & {"baseline", "advantage_scale"}):
            if self.loss == "sft":
                yield f"algorithm.{name} is {getattr(self, name)!r}, but loss 'sft' has no advantages: remove it"
        for name in sorted(changed & {"clip_low", "clip_high"}):
            if self.loss in _ANCHORED and self.proximal == "none":
                yield (
                    f"algorithm.{name} is {getattr(self, name)!r}, but without a proximal policy every ratio is 1 and "
                    'nothing is clipped: set algorithm.proximal to "recomputed" or "interpolated", or remove it'
                )
        if "kl_estimator" in changed and not self.kl_coefficient:
            yield (
                f"algorithm.kl_estimator is {self.kl_estimator!r} with kl_coefficient 0, where there is no reference "
                "model: set a kl_coefficient, such as 0.001, or remove it"
            )

    def _impossible(self) -> Iterator[str]:
        """Switches that do not go together."""
        if (self.normaliser == "constant") != (self.normaliser_tokens is not None):
            yield (
                f"algorithm.normaliser is {self.normaliser!r} and algorithm.normaliser_tokens is "
                f"{self.normaliser_tokens}: expected a number with 'constant', and none with all others"
            )
        if self.loss == "decoupled_ppo" and self.proximal == "none":
            yield (
                "algorithm.loss is 'decoupled_ppo' with algorithm.proximal 'none': expected where the proximal "
                'log-probabilities come from; take "recomputed", or "interpolated", which costs no forward pass'
            )
        if self.proximal_lag is not None and self.proximal != "interpolated":
            yield (
                f"algorithm.proximal_lag is {self.proximal_lag} with algorithm.proximal {self.proximal!r}: expected "
                '"interpolated", the only one that can lie at any step; remove one of them'
            )
        low, high = self.weight_clip_low, self.weight_clip
        if low is not None and high is not None and low >= high:
            yield f"algorithm.weight_clip_low is {low}: expected less than algorithm.weight_clip, {high}"
        is_movable = {low, high} - {None, 1.0} and (low is None or low <= 1) and (high is None or high >= 1)
        if self.clip_lag_factor != 1.0 and not is_movable:
            yield (
                f"algorithm.clip_lag_factor is {self.clip_lag_factor} with weight_clip {high} and weight_clip_low "
                f"{low}: expected a clip that it moves, from above at more than 1 or from below at less than 1"
            )
        if self.mask_low is not None and self.mask_high is not None and self.mask_low >= self.mask_high:
            yield f"algorithm.mask_low is {self.mask_low}: expected less than algorithm.mask_high, {self.mask_high}"
        if self.loss == "sft" and self.kl_coefficient and self.kl_estimator == "k1":
            yield "algorithm.kl_estimator is 'k1', a penalty of the reward, with loss 'sft': take k2 or k3"

    @property
    def ratio_level(self) -> WeightLevel:
        """The level at which this loss uses ratios, hence at which they are diagnosed."""
        if self.loss in ("rapid", "policy_gradient", "sft"):
            return self.weight_level
        return "length_normalised" if self.loss == "gspo" else "token"

    @property
    def loss_switches(self) -> dict[str, Any]:
        """The fields of `learner.losses.Switches`."""
        return {name: value for name, value in self.model_dump().items() if name not in _LEARNER_READS}


def _next_multiple(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor
