"""Models that were made with dropout train without it: a ratio to the generator, which has none, would be random."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


def switch_off_dropout(model: nn.Module) -> None:
    """Set the rate of every dropout in a transformers model to 0, whether the model is in training mode or not.

    Evaluation mode would not do, since it switches gradient checkpointing off, too. Some layers read their rate from
    the configuration at each pass: they get a copy of it, so that the model's own, which is written beside its weights,
    stays as it was made.
    """
    copies: dict[int, Any] = {}
    for module in model.modules():
        _clear_rates(module)
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        config = vars(module).get("config")
        if module is not model and config is not None and _find_rates(config):
            if id(config) not in copies:
                copies[id(config)] = _clear_rates(copy.deepcopy(config))
            module.config = copies[id(config)]


def _find_rates(owner: Any) -> dict[str, float]:
    """Numbers other than 0 that are called a dropout: `attention_dropout`, `resid_pdrop`, `layerdrop`."""
    return {
        name: value
        for name, value in vars(owner).items()
        if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool) and value
    }


def _clear_rates(owner: Any) -> Any:
    for name, value in _find_rates(owner).items():
        setattr(owner, name, type(value)(0))
    return owner
