"""Prompts to token ids and back, by the model's own tokenizer and chat template."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


class ChatText:
    """A model's tokenizer.

    Args:
        model_path: folder in transformers' format, with a tokenizer.
        system_prompt: goes before each prompt that has no system message of its own. None leaves it to the template.
    """

    def __init__(self, model_path: Path, system_prompt: str | None = None) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(model_path)
        self._system_prompt = system_prompt
        self.stop_token_ids = _stop_token_ids(model_path, self._tokenizer.eos_token_id)
        """Tokens that end a completion."""

    def encode(self, messages: list[dict[str, str]]) -> np.ndarray:
        """int32[P], the prompt up to where the assistant begins to speak."""
        if self._system_prompt is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self._system_prompt}, *messages]
        if self._tokenizer.chat_template is None:
            token_ids = self._tokenizer.encode("\n".join(message["content"] for message in messages))
        else:
            token_ids = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return np.asarray(token_ids, np.int32)

    def decode(self, token_ids: np.ndarray) -> str:
        """The text of a completion, without special tokens."""
        text: str = self._tokenizer.decode(token_ids.tolist(), skip_special_tokens=True)
        return text


def _stop_token_ids(model_path: Path, eos_token_id: int | None) -> tuple[int, ...]:
    # The generation configuration knows of further ends of turn, such as <|eot_id|> of Llama 3.
    path = model_path / "generation_config.json"
    named = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    found = named if isinstance(named, list) else [named]
    return tuple(sorted({token_id for token_id in (*found, eos_token_id) if token_id is not None}))
