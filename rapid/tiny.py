"""A random-initialised two-layer llama and its tokenizer, written without torch in a fraction of a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 0
HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS = 64, 128, 2, 2, 1
HEAD_DIM = 32  # the smallest that vLLM's CPU attention takes
CONTEXT = 2048
# One token a character, so that digits are single tokens; anything else is <|unknown|>.
SPECIALS = ["<|pad|>", "<|unknown|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
PRINTABLE = [chr(code) for code in range(32, 127)]
VOCABULARY_SIZE = 128  # a multiple of 64, as vLLM pads the head to one
END = "<|end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + ('user' if message['role'] == 'tool' else message['role']) + '|>' "
    "+ message['content'] + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def write_tiny(folder: Path, tied: bool) -> None:
    """Writes model and tokenizer in transformers' format; the same bytes every time. `tied`: head = embeddings."""
    from safetensors.numpy import save_file

    save_file(random_weights(tied), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", model_config(tied))
    end = vocabulary().index(END)
    write_json(folder / "generation_config.json", {"bos_token_id": None, "eos_token_id": end, "pad_token_id": 0})
    write_tokenizer(folder)


def vocabulary() -> list[str]:
    """The tokens in the order of their ids: specials, line end, ASCII, and letters with accents to fill up."""
    tokens = [*SPECIALS, "\n", *PRINTABLE]
    return tokens + [chr(0xE0 + index) for index in range(VOCABULARY_SIZE - len(tokens))]


def random_weights(tied: bool) -> dict[str, NDArray[np.float32]]:
    """Tensors by transformers' names: matrices (out, in), standard deviation 0.02 as in llama, norms one."""
    rng = np.random.default_rng(SEED)
    weights: dict[str, NDArray[np.float32]] = {}

    def add(name: str, *shape: int) -> None:
        weights[name] = as_bfloat16(rng.normal(0.0, 0.02, shape).astype(np.float32))

    add("model.embed_tokens.weight", VOCABULARY_SIZE, HIDDEN)
    weights["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{norm}.weight"] = np.ones(HIDDEN, np.float32)
        for name, num_heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            add(f"{prefix}self_attn.{name}_proj.weight", num_heads * HEAD_DIM, HIDDEN)
        add(f"{prefix}self_attn.o_proj.weight", HIDDEN, HEADS * HEAD_DIM)
        add(f"{prefix}mlp.gate_proj.weight", INTERMEDIATE, HIDDEN)
        add(f"{prefix}mlp.up_proj.weight", INTERMEDIATE, HIDDEN)
        add(f"{prefix}mlp.down_proj.weight", HIDDEN, INTERMEDIATE)
    if not tied:
        add("lm_head.weight", VOCABULARY_SIZE, HIDDEN)
    return weights


def as_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut to what bfloat16 holds, so that generator and trainer start from equal weights in either precision."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def model_config(tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": vocabulary().index(END),
        "pad_token_id": 0,
    }


def write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    tokens = {token: index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[], unk_token="<|unknown|>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<|pad|>", "unk_token": "<|unknown|>", "eos_token": END}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
        }
        | names,
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
