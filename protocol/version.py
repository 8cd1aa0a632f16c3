"""Policy versions: the name of one set of weights, for ever.

`step` counts optimizer steps. `incarnation` grows each time a learner restarts from a checkpoint, so
that a step repeated after a restart gets a name of its own. Lag is the number of optimizer steps
between two versions, walked through the branch point when the incarnations differ:

    incarnation 1   0──1──2──3──4──5      (1, 5) was never checkpointed
                             └──────┐
    incarnation 2                   3──4──5

    lag from (1, 5) to (2, 4): back to the branch point at step 3, then forward: (5-3) + (4-3) = 3
    lag from (1, 2) to (2, 4): the branch point lies after it, so it is an ancestor: 4 - 2 = 2
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LABEL = re.compile(r"(\d+)\.(\d+)", re.ASCII)


@dataclass(frozen=True, order=True, slots=True)
class PolicyVersion:
    """One set of weights: the learner's incarnation (from 1) and its optimizer step (from 0)."""

    incarnation: int
    step: int

    def __post_init__(self) -> None:
        if self.incarnation < 1 or self.step < 0:
            raise ValueError(
                f"policy version ({self.incarnation}, {self.step}): expected incarnation >= 1 and step >= 0"
            )

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.step}"

    @classmethod
    def parse(cls, label: str) -> PolicyVersion:
        """Read `"incarnation.step"`, the form in which vLLM carries the label. Raises ValueError."""
        match = _LABEL.fullmatch(label)
        if match is None:
            raise ValueError(f"policy version {label!r}: expected 'incarnation.step', for example '1.40'")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where each incarnation branched off the one before it.

    `branch_steps[i]` is the step at which incarnation i + 2 resumed, on the line of incarnation i + 1.
    """

    branch_steps: tuple[int, ...] = field(default=())

    @property
    def incarnation(self) -> int:
        """The newest incarnation."""
        return len(self.branch_steps) + 1

    def resume_at(self, step: int) -> Lineage:
        """The lineage after the learner restarted from the checkpoint of `step`."""
        if step < 0:
            raise ValueError(f"resume at step {step}: expected step >= 0")
        return Lineage((*self.branch_steps, step))

    def lag(self, generated: PolicyVersion, trained: PolicyVersion) -> int:
        """Optimizer steps between the version that generated a token and the one that trains on it.

        Never negative. Raises ValueError for a version that this lineage does not know, or one that
        comes after the version which trains on it.
        """
        for version in (generated, trained):
            if version.incarnation > self.incarnation:
                raise ValueError(f"version {version} is of an incarnation after {self.incarnation}, the newest known")
        if generated.incarnation > trained.incarnation:
            raise ValueError(f"version {generated} comes after {trained}, which trains on it")
        if generated.incarnation == trained.incarnation:
            if generated.step > trained.step:
                raise ValueError(f"version {generated} comes after {trained}, which trains on it")
            return trained.step - generated.step
        ancestor = min(generated.step, *self.branch_steps[generated.incarnation - 1 : trained.incarnation - 1])
        if trained.step < ancestor:
            raise ValueError(f"version {trained} lies before the step at which its incarnation began")
        return (generated.step - ancestor) + (trained.step - ancestor)
