"""Log-probabilities of completion tokens under the model that is trained.

    R, L  rows and positions        K  completion tokens        D  hidden size

The transformer's body runs once over all positions; the head, whose columns cost more than many layers, runs only
where a completion token is predicted (`learner.head`).
"""

from __future__ import annotations

import torch
from torch import nn

from learner.attention import use_short_row_attention
from learner.batch import TrainBatch
from learner.head import head_logprobs, module_logprobs
from learner.norms import use_cached_norms
from learner.packing import MicroBatch, pack_micro_batches

# Heads that do more than a matrix product, by the field of the configuration that says so and its neutral values.
_HEAD_EXTRAS = {"final_logit_softcapping": (None,), "logits_scaling": (None, 1, 1.0), "logit_scale": (None, 1, 1.0)}
_WINDOWED = "sliding_attention"
_MASKED_LAYERS = ("full_attention", _WINDOWED)
# Probabilities of a tiny row, which differ by rounding alone if the mask is obeyed.
_PROBE_TOLERANCE = 0.05


def token_logprobs(
    model: nn.Module,
    micro_batch: MicroBatch,
    temperature: float,
    *,
    with_entropy: bool = False,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log π of the K completion tokens, float32 with gradient, and their entropies in nats if asked.

    `model` is a causal language model of transformers. `temperature` divides the logits, as it did in the
    generator. Entropies are detached without `entropy_gradient`. Under ZeRO 3 the call must happen inside the engine's
    forward pass, which gathers each parameter.
    Raises ValueError for a model whose head does more than a matrix product.
    """
    require_plain_head(model)
    hidden = hidden_states(model, micro_batch)
    hidden_K = hidden.flatten(0, 1).index_select(0, micro_batch.predict_index)
    head = model.get_output_embeddings()
    entropy = {"with_entropy": with_entropy, "entropy_gradient": entropy_gradient}
    if head.bias is not None or hasattr(head.weight, "ds_id"):
        # ZeRO 3 has spread the weight over ranks, and gathers it for a call of the module alone.
        return module_logprobs(head, hidden_K, micro_batch.target_ids, temperature, **entropy)
    return head_logprobs(hidden_K, head.weight, micro_batch.target_ids, temperature, **entropy)


def hidden_states(model: nn.Module, micro_batch: MicroBatch) -> torch.Tensor:
    """Output of the transformer's body, (R, L, D)."""
    output = model.base_model(
        input_ids=micro_batch.input_ids,
        attention_mask=attention_masks(model, micro_batch),
        position_ids=micro_batch.position_ids,
        use_cache=False,
    )
    return output.last_hidden_state


def attention_masks(model: nn.Module, micro_batch: MicroBatch) -> torch.Tensor | dict[str, torch.Tensor] | None:
    """What the model's body takes as attention mask: None (causal), one mask, or one for each kind of layer.

    transformers hands 4-D masks to the layers as they are, so a sliding window has to be in them already. It counts
    positions and not places in the row, so that it is the window of the completion standing alone.
    """
    if micro_batch.attention_mask is None:
        return None
    full = micro_batch.attention_mask
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ([_WINDOWED] if window else ["full_attention"]))
    masks = {"full_attention": _additive(full, model.dtype)}
    if _WINDOWED in kinds:
        positions = micro_batch.position_ids
        distances = positions[:, None, :, None] - positions[:, None, None, :]
        masks[_WINDOWED] = _additive(full & (distances < window), model.dtype)
    return masks[kinds.pop()] if len(kinds) == 1 else masks


def prepare_model(model: nn.Module, row_layout: str) -> bool:
    """Ready a transformers model for `token_logprobs`; says whether to pack rows with `share_prompts`.

    To be called once, on the device, before DeepSpeed takes the weights. On the CPU it also installs the attention for
    short rows and the norms in pieces. `row_layout` is LearnerConfig's. Raises ValueError for "shared" with a model
    that cannot, and for a model whose head does more than a matrix product.
    """
    require_plain_head(model)
    use_short_row_attention(model)
    use_cached_norms(model)
    if row_layout == "plain":
        return False
    is_able = can_share_prompts(model)
    if row_layout == "shared" and not is_able:
        raise ValueError(
            f'learner.row_layout is "shared", but {type(model).__name__} with attention '
            f'{model.config._attn_implementation!r} does not take its mask: choose "auto" or "plain"'
        )
    return is_able


def can_share_prompts(model: nn.Module) -> bool:
    """Whether completions may share a row: the model's layers take masks, and a trial shows that they obey them.

    Costs two forward passes over a dozen tokens; ask once.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or _MASKED_LAYERS)
    if not kinds <= set(_MASKED_LAYERS) or config._attn_implementation in ("flash_attention_2", "flash_attention_3"):
        return False
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            difference = (_probe(model, True) - _probe(model, False)).abs().max()
    except (TypeError, ValueError, RuntimeError, KeyError):
        # A body that does not take the mask says so in a way of its own; a fault of another kind shows in training.
        return False
    finally:
        model.train(was_training)
    return bool(difference < _PROBE_TOLERANCE)


def attention_cost(model: nn.Module) -> float:
    """Cost of one query-key pair in units of one token's linear layers, for `pack_micro_batches`.

    A layer takes about 24·D² operations a token in its matrix products and 4·D a pair in its attention, which run
    at about a third of the speed of the large products: 3·4·D / 24·D².
    """
    return 1.0 / (2.0 * float(model.config.get_text_config().hidden_size))


def require_plain_head(model: nn.Module) -> None:
    """Raise ValueError where logits are more than the hidden state times the head's weight."""
    config = model.config.get_text_config()
    for name, neutral in _HEAD_EXTRAS.items():
        value = getattr(config, name, None)
        if value not in neutral:
            raise ValueError(
                f"{type(model).__name__} has {name} = {value}, expected {neutral[-1]}: its logits are not a plain "
                "matrix product; choose a model without it"
            )


def _probe(model: nn.Module, share_prompts: bool) -> torch.Tensor:
    """Log-probabilities of two completions of one prompt, in one row or in two."""
    batch = TrainBatch(
        prompt_ids_P=torch.tensor([1, 2, 3]),
        prompt_lengths_N=torch.tensor([3]),
        token_ids_T=torch.tensor([4, 5, 6, 7, 8, 9]),
        generator_logprobs_T=torch.zeros(6),
        lags_T=torch.zeros(6, dtype=torch.int64),
        completion_of_T=torch.tensor([0, 0, 0, 1, 1, 1]),
        lengths_C=torch.tensor([3, 3]),
        group_of_C=torch.tensor([0, 0]),
        rewards_C=torch.zeros(2),
    )
    (micro_batch,) = pack_micro_batches(batch, [0], max_tokens=64, attention_cost=0.0, share_prompts=share_prompts)
    return token_logprobs(model, micro_batch.to(model.device), 1.0)[0]


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where a query may look, and the type's least number where not, as both sdpa and eager attention take it."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
