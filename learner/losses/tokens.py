"""What a loss is told: the tokens of whole groups as flat tensors, checked for their shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_PER_TOKEN = ("held", "generator", "completion_of", "lags", "proximal", "reference", "kept", "entropies")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """T tokens of C completions. Raises ValueError for shapes that do not fit."""

    trainer: torch.Tensor
    """(T,), log π, with gradient."""
    held: torch.Tensor
    """(T,), log π where a formula stops the gradient: `trainer` detached. Apart from it only for finite differences,
    which cannot tell a stopped gradient from a constant."""
    generator: torch.Tensor
    """(T,), log μ."""
    completion_of: torch.Tensor
    """int64 (T,)."""
    group_of: torch.Tensor
    """int64 (C,)."""
    rewards: torch.Tensor
    """(C,)."""
    lags: torch.Tensor | None = None
    """int64 (T,), optimizer steps from the version that generated the token to the one that trains on it."""
    proximal: torch.Tensor | None = None
    """(T,), log π_prox; None where the proximal policy is π itself."""
    reference: torch.Tensor | None = None
    """(T,), log-probabilities of the reference model."""
    kept: torch.Tensor | None = None
    """(T,), False where M2PO masks the token."""
    entropies: torch.Tensor | None = None
    """(T,), entropy of π at the token, in nats, with gradient."""

    def __post_init__(self) -> None:
        shapes = {name: tuple(getattr(self, name).shape) for name in _PER_TOKEN if getattr(self, name) is not None}
        if self.trainer.ndim != 1 or set(shapes.values()) != {tuple(self.trainer.shape)}:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(
                f"trainer {tuple(self.trainer.shape)}, {listed}: expected one dimension, one element a token"
            )
        if self.group_of.shape != self.rewards.shape or self.rewards.ndim != 1:
            raise ValueError(
                f"group_of {tuple(self.group_of.shape)}, rewards {tuple(self.rewards.shape)}: expected one dimension, "
                "one element a completion"
            )
        if len(self.completion_of) and int(self.completion_of.max()) >= len(self.rewards):
            raise ValueError(
                f"completion_of names completion {int(self.completion_of.max())}, expected less than "
                f"{len(self.rewards)}, the number of rewards"
            )

    @property
    def num_completions(self) -> int:
        """C."""
        return len(self.rewards)

    @property
    def log_ratios(self) -> torch.Tensor:
        """(T,), log π/μ, with gradient."""
        return self.trainer - self.generator

    @property
    def held_log_ratios(self) -> torch.Tensor:
        """(T,), log π/μ, a constant."""
        return self.held - self.generator

    @property
    def anchor(self) -> torch.Tensor:
        """(T,), log π_prox, a constant."""
        return self.held if self.proximal is None else self.proximal


def require(values: torch.Tensor | None, name: str, reader: str) -> torch.Tensor:
    """The values, or ValueError naming who needs them."""
    if values is None:
        raise ValueError(f"{reader} needs {name}, got None: expected one value a token")
    return values
