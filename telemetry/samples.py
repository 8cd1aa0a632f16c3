"""What the model said: `samples.jsonl`, a few groups of every n-th step, for the report's browser of completions.

A line is one group:

    {"step": 5, "incarnation": 1, "entry": "0:17", "actor": "actor-0", "num_completions": 8, "reward_mean": 0.25,
     "prompt": "...", "best": {...}, "worst": {...}}

and a completion is

    {"tokens": ["The", " sum", ...], "spans": [[12, "1.3", 1], [4, "1.4", 0]], "reward": 1.0,
     "parts": {"format": 0.5}, "stop": "stop", "num_tokens": 16}

`spans` say, for so many tokens each, the policy version that generated them and its lag behind the one that trained on
them. Long completions keep their first tokens; `num_tokens` counts all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from telemetry.lines import cut_torn_line, encode_line, read_lines

Sample = dict[str, Any]
_KEYS = {"step", "incarnation", "entry", "actor", "num_completions", "reward_mean", "prompt", "best", "worst"}
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
# Room for a character of four tokens and one before it.
_LONGEST_CHARACTER = 5


class Tokenizer(Protocol):
    """What is asked of a tokenizer; transformers' have it."""

    def decode(self, token_ids: list[int], **options: Any) -> str:
        """The text of these tokens."""
        ...


def token_texts(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[str]:
    """The text of each token, special ones included; joined they are the text of all.

    A character of several tokens stands at the last of them, and the others are empty. Spaces that a tokenizer drops at
    the beginning of a text are kept, since every piece is taken as what a token adds to those before it.
    """
    ids, pieces = list(token_ids), []
    context = read = 0
    for end in range(1, len(ids) + 1):
        before, after = _decode(tokenizer, ids[context:read]), _decode(tokenizer, ids[context:end])
        if after.endswith(_UNFINISHED) and end < len(ids) and end - read < _LONGEST_CHARACTER:
            pieces.append("")
            continue
        pieces.append(after[len(before) :])
        context, read = read, end
    return pieces


def _decode(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class SampleWriter:
    """Appends samples to a file; one process writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        cut_torn_line(path)

    def append(self, samples: Sequence[Sample]) -> None:
        """Append these. Raises OSError."""
        with self._path.open("ab") as file:
            file.write(b"".join(encode_line(sample) for sample in samples))


def read_samples(path: Path) -> list[Sample]:
    """The samples of steps that the present weights descend from, by step; those of a resumed run's lost steps are out.

    Empty for a file that is not there.
    """
    kept: list[Sample] = []
    for sample in read_lines(path):
        if not set(sample) >= _KEYS:
            continue
        while kept and kept[-1]["step"] >= sample["step"] and kept[-1]["incarnation"] < sample["incarnation"]:
            kept.pop()
        kept.append(sample)
    return kept
