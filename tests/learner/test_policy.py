from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from learner import head
from learner.attention import NAME, short_row_attention, use_short_row_attention
from learner.head import head_logprobs, module_logprobs
from learner.packing import pack_micro_batches
from learner.policy import attention_cost, can_share_prompts, prepare_model, token_logprobs
from tests.learner.batch_kit import VOCABULARY, make_batch

SHAPES = [(7, [2, 4, 1]), (5, [3, 6, 2]), (1, [1, 5, 2]), (9, [2, 2, 2])]
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    # Large, so that attention is far from uniform and a wrong mask shows.
    "initializer_range": 0.3,
}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama-untied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}),
    "mistral-window": (MistralForCausalLM, MistralConfig, {"sliding_window": 4}),
    "qwen2-window": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 4, "layer_types": MIXED},
    ),
    "gemma3-window": (Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": 4, "layer_types": MIXED}),
}


def make_model(name: str, attention: str = "sdpa"):
    torch.manual_seed(3)
    model_class, config_class, extra = MODELS[name]
    return model_class(config_class(**SIZES, **extra, attn_implementation=attention)).eval()


def all_logprobs(model, batch, temperature=0.7, *, share_prompts, cost=0.0, max_tokens=60):
    """(T,) in the order of the batch, with gradient."""
    logprobs = torch.zeros(batch.num_tokens)
    for micro_batch in pack_micro_batches(
        batch, range(batch.num_groups), max_tokens=max_tokens, attention_cost=cost, share_prompts=share_prompts
    ):
        logprobs = logprobs.index_put((micro_batch.token_index,), token_logprobs(model, micro_batch, temperature)[0])
    return logprobs


def reference_logprobs(model, batch, temperature=0.7):
    """One unpadded forward pass of the whole model for each completion."""
    logprobs, starts = [], batch.prompt_lengths_N.cumsum(0) - batch.prompt_lengths_N
    for completion, group in enumerate(batch.group_of_C.tolist()):
        prompt = batch.prompt_ids_P[starts[group] : starts[group] + batch.prompt_lengths_N[group]]
        tokens = batch.token_ids_T[batch.completion_of_T == completion]
        logits = model(input_ids=torch.cat([prompt, tokens])[None]).logits[0, len(prompt) - 1 : -1]
        logprobs.append((logits / temperature).log_softmax(-1).gather(1, tokens[:, None]).squeeze(1))
    return torch.cat(logprobs)


def gradients(model, logprobs):
    """Of a loss that gives every token another weight."""
    model.zero_grad()
    (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attention", ["sdpa", "eager", NAME])
def test_shared_rows_equal_a_plain_forward_pass_of_each_completion(name, attention):
    model, batch = make_model(name), make_batch(SHAPES)
    reference = reference_logprobs(model, batch)
    expected = gradients(model, reference)
    if attention == NAME:
        assert use_short_row_attention(model)
    else:
        model.set_attn_implementation(attention)
    for share_prompts, cost in ((True, 0.0), (True, 0.05), (False, 0.0)):
        logprobs = all_logprobs(model, batch, share_prompts=share_prompts, cost=cost)
        torch.testing.assert_close(logprobs, reference, atol=2e-5, rtol=1e-5)
        for parameter, gradient in gradients(model, logprobs).items():
            torch.testing.assert_close(gradient, expected[parameter], atol=1e-4, rtol=1e-3, msg=parameter)


def test_the_size_of_micro_batches_changes_nothing():
    model, batch = make_model("llama"), make_batch(SHAPES)
    whole = all_logprobs(model, batch, share_prompts=True, max_tokens=1000)
    parts = all_logprobs(model, batch, share_prompts=True, max_tokens=1)
    torch.testing.assert_close(whole, parts, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_models_whose_layers_take_masks_share_prompts(name):
    assert prepare_model(make_model(name), "auto") is True
    assert prepare_model(make_model(name), "plain") is False


def test_a_model_that_ignores_the_mask_does_not_share_prompts():
    model = make_model("llama")
    forward = model.model.forward
    model.model.forward = lambda attention_mask, **inputs: forward(attention_mask=None, **inputs)
    assert not can_share_prompts(model)
    with pytest.raises(ValueError, match='choose "auto" or "plain"'):
        prepare_model(model, "shared")


def test_a_model_with_layers_of_another_kind_does_not_share_prompts():
    model = make_model("llama")
    model.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    assert not can_share_prompts(model)


def test_a_head_that_caps_its_logits_is_refused():
    model = make_model("gemma3-window")
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match=r"final_logit_softcapping = 30\.0"):
        prepare_model(model, "auto")


def test_long_rows_leave_short_row_attention_for_the_library(monkeypatch):
    model, batch = make_model("llama"), make_batch(SHAPES)
    use_short_row_attention(model)
    short = all_logprobs(model, batch, share_prompts=True)
    monkeypatch.setattr("learner.attention.MAX_POSITIONS", 4)
    torch.testing.assert_close(all_logprobs(model, batch, share_prompts=True), short, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("is_masked", [True, False])
def test_short_row_attention_and_its_gradients_are_those_of_torch(is_masked):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, 7, 4, generator=generator, dtype=torch.float64, requires_grad=True) for heads in (6, 3, 3)
    )
    mask = torch.rand(2, 1, 7, 7, generator=generator) < 0.6
    mask = (mask | torch.eye(7, dtype=torch.bool)) if is_masked else None
    found, _ = short_row_attention(nn.Module(), query, key, value, mask)
    expected = nn.functional.scaled_dot_product_attention(
        query, key, value, mask, is_causal=not is_masked, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    gradients = (torch.autograd.grad((output * weights).sum(), (query, key, value)) for output in (found, expected))
    for gradient, other in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, other)


def test_attention_counts_for_more_in_narrow_models():
    narrow = make_model("llama")
    assert attention_cost(narrow) == pytest.approx(1 / 64)


def plain_head(hidden, weight, targets, temperature):
    return (hidden.float() @ weight.float().t() / temperature).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("block_bytes", [2**29, 1])
def test_the_head_equals_plain_autograd_kept_or_computed_again(temperature, block_bytes, monkeypatch):
    monkeypatch.setattr(head, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(head, "MATMUL_ROWS", 5)
    monkeypatch.setattr(head, "SOFTMAX_ROWS", {"cpu": 3})
    torch.manual_seed(0)
    hidden, weight = torch.randn(13, 8, requires_grad=True), torch.randn(21, 8, requires_grad=True)
    targets, upstream = torch.randint(21, (13,)), torch.randn(13)
    expected = plain_head(hidden, weight, targets, temperature)
    wanted = torch.autograd.grad(expected, (hidden, weight), upstream)
    logprobs, entropies = head_logprobs(hidden, weight, targets, temperature, with_entropy=True)
    torch.testing.assert_close(logprobs, expected)
    torch.testing.assert_close(torch.autograd.grad(logprobs, (hidden, weight), upstream), wanted)
    logits = (hidden @ weight.t()).detach() / temperature
    torch.testing.assert_close(entropies, torch.distributions.Categorical(logits=logits).entropy())
    assert not entropies.requires_grad


def test_a_head_called_as_a_module_gives_the_same():
    torch.manual_seed(0)
    module, hidden, targets = torch.nn.Linear(8, 21, bias=False), torch.randn(13, 8), torch.randint(21, (13,))
    by_module = module_logprobs(module, hidden, targets, 0.7, with_entropy=True)
    fused = head_logprobs(hidden, module.weight, targets, 0.7, with_entropy=True)
    torch.testing.assert_close(by_module, fused)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_gradient_of_the_entropy_is_that_of_plain_autograd(monkeypatch, temperature):
    torch.manual_seed(5)
    hidden, targets = torch.randn(40, 16), torch.randint(0, VOCABULARY, (40,))
    module = torch.nn.Linear(16, VOCABULARY, bias=False)
    weights = torch.randn(2, 40)
    # Blocks smaller than the batch, and than a product.
    monkeypatch.setattr(head, "MATMUL_ROWS", 12)
    monkeypatch.setattr(head, "SOFTMAX_ROWS", {"cpu": 5})

    def run(logprobs, entropies, leaf):
        loss = (weights[0] * logprobs).sum() + (weights[1] * entropies).sum()
        return logprobs.detach(), entropies.detach(), *torch.autograd.grad(loss, [leaf, module.weight])

    options = {"with_entropy": True, "entropy_gradient": True}
    leaf = hidden.clone().requires_grad_()
    found = run(*head_logprobs(leaf, module.weight, targets, temperature, **options), leaf)
    expected = run(*module_logprobs(module, leaf, targets, temperature, **options), leaf)
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, atol=2e-6, rtol=1e-5)
    # By hand: of one state, ∂H/∂z = −p (log p + H) / τ.
    logits = (hidden[:1] @ module.weight.T / temperature).double().detach().requires_grad_()
    probs = logits.softmax(-1)
    entropy = -(probs * probs.log()).sum()
    by_hand = -probs * (probs.log() + entropy)
    torch.testing.assert_close(torch.autograd.grad(entropy, logits)[0], by_hand.detach())


def test_without_an_entropy_bonus_the_entropy_has_no_gradient():
    hidden, weight = torch.randn(3, 8, requires_grad=True), torch.randn(VOCABULARY, 8)
    assert not head_logprobs(hidden, weight, torch.tensor([1, 2, 3]), 1.0, with_entropy=True)[1].requires_grad


def test_the_gradient_of_a_nearly_certain_token_survives_bfloat16():
    # p = 1 − 1e-3: bfloat16 has no number between 0.9961 and 1, so p must meet the 1 in float32.
    weight = torch.eye(2, dtype=torch.bfloat16)
    hidden = torch.tensor([[6.90625, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    logprobs, _ = head_logprobs(hidden, weight, torch.tensor([0]), 1.0)
    (gradient,) = torch.autograd.grad(logprobs.sum(), hidden)
    other = 1 / (1 + torch.tensor(6.90625).exp())
    torch.testing.assert_close(gradient.float(), torch.tensor([[other, -other]]), rtol=1e-2, atol=0)


def test_a_probability_of_zero_gives_a_finite_logprob():
    logprobs, _ = head_logprobs(torch.tensor([[1e4, 0.0]]), torch.eye(2), torch.tensor([1]), 1.0)
    assert bool(logprobs.isfinite().all())


def test_head_shapes_and_temperature_are_checked():
    hidden, weight, targets = torch.zeros(3, 4), torch.zeros(5, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"expected \(K, D\)"):
        head_logprobs(hidden, weight, targets[:2], 1.0)
    with pytest.raises(ValueError, match="expected a positive number"):
        head_logprobs(hidden, weight, targets, 0.0)
