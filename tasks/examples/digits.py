"""Say digits. A model that starts at random learns it in seconds: the share of digits rises from about 0.08 to 1."""

from __future__ import annotations

from tasks import Prompt


class Digits:
    def __init__(self, size: int = 1000, split: str = "train") -> None:
        self.name = "digits"
        self._start = 0 if split == "train" else size
        self._size = size

    def __len__(self) -> int:
        return self._size

    def prompt(self, index: int) -> Prompt:
        return Prompt.ask(str(self._start + index))

    def reward(self, prompt: Prompt, completion: str) -> float:
        return sum(character in "0123456789" for character in completion) / max(1, len(completion))
