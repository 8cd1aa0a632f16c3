from __future__ import annotations

from pathlib import Path

import pytest

from telemetry.samples import SampleWriter, read_samples, token_texts
from tests.telemetry.fakes import make_sample


class ByteTokenizer:
    """A token a byte, as the byte-level ones do with characters that they do not know."""

    def decode(self, token_ids: list[int], **options: object) -> str:
        assert options == {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return bytes(token_ids).decode(errors="replace")


class WordTokenizer:
    """Drops the space before the first word of a text, as sentencepiece does."""

    words = (" The", " sum", " is", "</s>")

    def decode(self, token_ids: list[int], **options: object) -> str:
        return "".join(self.words[token_id] for token_id in token_ids).removeprefix(" ")


@pytest.mark.parametrize("text", ["abc", "3 €", "😀😀", "ends in the middle of é"])
def test_pieces_of_tokens_join_to_the_text(text: str) -> None:
    pieces = token_texts(ByteTokenizer(), list(text.encode()))
    assert "".join(pieces) == text
    assert len(pieces) == len(text.encode())


def test_a_character_of_several_tokens_stands_at_the_last() -> None:
    assert token_texts(ByteTokenizer(), list("a€b".encode())) == ["a", "", "", "€", "b"]


def test_bytes_that_are_no_character_do_not_swallow_what_follows() -> None:
    pieces = token_texts(ByteTokenizer(), [0xE2, 0x82, *b"ok then", 0xE2])
    assert "".join(pieces).endswith("ok then\N{REPLACEMENT CHARACTER}")
    assert len(pieces) == 10
    assert len(token_texts(ByteTokenizer(), [0xFF] * 20)) == 20


def test_spaces_that_a_tokenizer_drops_at_the_start_are_kept_inside() -> None:
    assert token_texts(WordTokenizer(), [0, 1, 2, 3]) == ["The", " sum", " is", "</s>"]


def test_no_tokens_have_no_text() -> None:
    assert token_texts(ByteTokenizer(), []) == []


def test_samples_of_lost_steps_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    writer = SampleWriter(path)
    for incarnation, step in ((1, 1), (1, 5), (1, 5), (1, 10)):
        writer.append([make_sample(step, 0) | {"incarnation": incarnation}])
    with path.open("ab") as file:
        file.write(b'{"step": 1')
    SampleWriter(path).append([{"step": 7}, make_sample(5, 0) | {"incarnation": 2}])
    assert [(sample["step"], sample["incarnation"]) for sample in read_samples(path)] == [(1, 1), (5, 2)]


def test_a_run_without_samples_has_none(tmp_path: Path) -> None:
    assert read_samples(tmp_path / "samples.jsonl") == []
