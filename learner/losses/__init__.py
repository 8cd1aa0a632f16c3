"""Policy losses as pure functions of tensors.

    T  generated tokens        C  completions        N  groups of the whole batch, over all micro-batches and ranks

The loss of a batch is a sum over its tokens, so it splits: with the normalisers of the whole batch (`num_groups`,
`num_tokens`) the losses of its micro-batches add up to its own, and so do their gradients, as long as no group
is cut. Ranks therefore add their gradients; an engine that averages them over W ranks multiplies the loss by W.

    policy.py      weight and surrogate of each method, and the sum       tokens.py         the tensors and their checks
    weights.py     weights that correct for the generator                 ratios.py         ratios at a level
    surrogates.py  what the gradient goes through                         scales.py         normalisers
    proximal.py    π_prox by interpolation                                second_moment.py  M2PO's mask
    penalties.py   KL to a reference

RAPID (Huang et al. 2025, arXiv 2510.03515), for a group of G completions y_i with rewards r_i, generator μ and
trainer π, w̄ the truncated importance weight and b a baseline, both detached:

    loss = −(1/N) Σ_groups (1/G) Σ_i w̄_i (r_i − b) log π(y_i|x)

docs/algorithm.md has the others, and says what of this is the paper's and what our reading.
"""

from learner.losses.policy import LOSSES, PolicyLoss, Switches, kept_tokens, policy_loss
from learner.losses.proximal import interpolate_proximal
from learner.losses.ratios import MAX_LOG_RATIO
from learner.losses.tokens import Tokens

__all__ = [
    "LOSSES",
    "MAX_LOG_RATIO",
    "PolicyLoss",
    "Switches",
    "Tokens",
    "interpolate_proximal",
    "kept_tokens",
    "policy_loss",
]
