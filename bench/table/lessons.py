"""The supervised lessons of bench.table.teach: model, pairs, steps, and samples that are judged. Needs torch."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from actors.text import ChatText
from bench.table.teach import HABITS, TeachSpec, answer_of
from rapid.tiny import CONTEXT, END, VOCABULARY_SIZE, model_config, vocabulary, write_json
from tasks import build_task
from tasks.config import TaskConfig
from tasks.task import as_reward, prompt_key

IGNORED = -100
MAX_ANSWER = 12
"""Tokens of a sampled answer, at most."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """So small a model gains nothing from more, and sums that are split differ from machine to machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_model(spec: TeachSpec) -> LlamaForCausalLM:
    """A llama with random weights, in float32."""
    torch.manual_seed(spec.seed)
    return LlamaForCausalLM(LlamaConfig(**{**model_config(tied=True), **sizes(spec)}))


def sizes(spec: TeachSpec) -> dict[str, int]:
    """What differs from the model "tiny"."""
    heads = spec.hidden // 32
    return {
        "hidden_size": spec.hidden,
        "intermediate_size": 4 * spec.hidden,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": 32,
        "max_position_embeddings": CONTEXT,
        "vocab_size": VOCABULARY_SIZE,
    }


def save_model(model: LlamaForCausalLM, folder: Path) -> str:
    """Write it in bfloat16, as engine and learner will read it; the hash of the weights' file."""
    model.to(torch.bfloat16).save_pretrained(folder)
    end = vocabulary().index(END)
    write_json(folder / "generation_config.json", {"bos_token_id": None, "eos_token_id": end, "pad_token_id": 0})
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


class Lessons:
    """Pairs of prompt and right answer, the optimizer, and the judge.

    Args:
        folder: with the tokenizer and its chat template.
    """

    def __init__(self, folder: Path, spec: TeachSpec, task: TaskConfig) -> None:
        self._spec = spec
        self._text = ChatText(folder, None)
        self._token_ids = {token: index for index, token in enumerate(vocabulary())}
        self._end = self._token_ids[END]
        self._task = build_task(task)
        held_out = build_task(task, split="eval") if task.eval is not None else None
        self._forbidden = {prompt_key(held_out.prompt(index)) for index in range(len(held_out))} if held_out else set()
        self._order = np.random.default_rng(spec.seed)
        self._optimizer: torch.optim.AdamW | None = None
        self._generator = torch.Generator().manual_seed(spec.seed)

    def step(self, model: LlamaForCausalLM) -> float:
        """One update on a batch of pairs; the mean loss of an answer's token."""
        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(model.parameters(), self._spec.lr, betas=(0.9, 0.95), weight_decay=0.01)
        input_ids_B_T, labels_B_T = self._batch()
        loss = model(input_ids=input_ids_B_T, labels=labels_B_T).loss
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self._optimizer.step()
        return float(loss.detach())

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and labels, int64 (batch, tokens); prompts and padding carry no label."""
        rows = []
        while len(rows) < self._spec.batch:
            prompt = self._task.prompt(int(self._order.integers(len(self._task))))
            if prompt_key(prompt) not in self._forbidden:
                text = self._spoil(answer_of(prompt.reference))
                answer = [*(self._token_ids[character] for character in text), self._end]
                rows.append((self._text.encode(prompt.messages).tolist(), answer))
        width = max(len(asked) + len(answer) for asked, answer in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels = torch.full_like(ids, IGNORED)
        for row, (asked, answer) in enumerate(rows):
            ids[row, : len(asked) + len(answer)] = torch.tensor(asked + answer)
            labels[row, len(asked) : len(asked) + len(answer)] = torch.tensor(answer)
        return ids, labels

    def _spoil(self, answer: str) -> str:
        if self._order.random() < self._spec.right:
            return answer
        return HABITS[self._order.integers(len(HABITS))](answer)

    def share_solved(self, model: LlamaForCausalLM, count: int) -> float:
        """Share of training prompts, from the end of the task, that one sample at temperature 1 solves."""
        prompts = [self._task.prompt(len(self._task) - 1 - index) for index in range(min(count, len(self._task)))]
        answers = self.sample(model, [self._text.encode(prompt.messages).tolist() for prompt in prompts])
        rewards = [self._judge(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return float(np.mean([reward >= 1.0 for reward in rewards]))

    def _judge(self, prompt: Any, answer: str) -> float:
        given = self._task.reward(prompt, answer)
        return as_reward(asyncio.run(given) if inspect.isawaitable(given) else given).value  # type: ignore[arg-type]

    @torch.inference_mode()
    def sample(self, model: LlamaForCausalLM, prompts: list[list[int]]) -> list[str]:
        """One answer a prompt. Rows end at different places; what stands behind is never attended to."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = torch.zeros(len(prompts), int(lengths.max()) + MAX_ANSWER, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        rows, ends, is_open = torch.arange(len(prompts)), lengths.clone(), torch.ones(len(prompts), dtype=torch.bool)
        while bool(is_open.any()) and int((ends - lengths).max()) < MAX_ANSWER:
            logits = model(input_ids=ids[:, : int(ends.max())]).logits[rows, ends - 1]
            drawn = torch.multinomial(logits.float().softmax(-1), 1, generator=self._generator)[:, 0]
            is_open &= drawn != self._end
            ids[rows[is_open], ends[is_open]] = drawn[is_open]
            ends += is_open
        spans = zip(lengths.tolist(), ends.tolist(), strict=True)
        return [self._text.decode(ids[row, start:end].numpy()) for row, (start, end) in enumerate(spans)]
