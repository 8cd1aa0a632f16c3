"""Models: made, found, or refused with the remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rapid import models
from rapid.models import ModelError, check_model, prepare_model
from rapid.tiny import random_weights, vocabulary


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return prepare_model("tiny", tmp_path)


def answer_with(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    """Lets the hub answer every look-up with `error`, or with success."""
    from huggingface_hub import HfApi

    def model_info(self: HfApi, name: str, timeout: float) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(HfApi, "model_info", model_info)


def not_found() -> Exception:
    from httpx2 import Request, Response
    from huggingface_hub.errors import RepositoryNotFoundError

    return RepositoryNotFoundError("404", response=Response(404, request=Request("GET", "https://hub")))


def test_a_made_model_is_made_once_and_kept(tmp_path: Path) -> None:
    assert check_model("tiny", tmp_path) == []
    folder = prepare_model("tiny", tmp_path)
    before = (folder / "model.safetensors").stat()
    assert prepare_model("tiny", tmp_path) == folder
    assert (folder / "model.safetensors").stat() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["tiny-1", "tiny.lock"]


def test_a_made_model_is_the_same_everywhere(tmp_path: Path, tiny: Path) -> None:
    again = prepare_model("tiny", tmp_path / "other")
    for file in tiny.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name


def test_tied_and_untied_differ_in_the_head_alone() -> None:
    tied, untied = random_weights(tied=True), random_weights(tied=False)
    assert set(untied) - set(tied) == {"lm_head.weight"}
    assert all((tied[name] == untied[name]).all() for name in tied)
    assert (untied["lm_head.weight"] != untied["model.embed_tokens.weight"]).any()


def test_a_making_that_fails_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setitem(models.MAKERS, "tiny", write_half)
        with pytest.raises(ModelError, match=r"cannot be written to .*: No space left on device"):
            prepare_model("tiny", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.lock"]
    assert (prepare_model("tiny", tmp_path) / "model.safetensors").is_file()


def test_processes_that_want_the_same_model_make_it_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rapid import models; made = models.MAKERS['tiny']\n"
        "def make(folder): print('made'); made(folder)\n"
        "models.MAKERS['tiny'] = make; models.prepare_model('tiny', Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each or os.getcwd() for each in sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    assert sorted(worker.communicate(timeout=60)[0] for worker in workers) == ["", "", "made\n"]


def test_the_tiny_tokenizer_has_a_token_a_character(tiny: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    ids = tokenizer.encode("<|user|>12 + 30 =\n<|end|>").ids
    assert [vocabulary()[each] for each in ids] == ["<|user|>", *"12 + 30 =\n", "<|end|>"]
    assert tokenizer.decode(ids) == "12 + 30 =\n"
    assert len(vocabulary()) == len(set(vocabulary())) == json.loads((tiny / "config.json").read_text())["vocab_size"]


@pytest.mark.slow
def test_transformers_opens_the_tiny_models(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name, parameters in (("tiny", 82_240), ("tiny-untied", 90_432)):
        folder = prepare_model(name, tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 2"}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert text == "<|system|>Add.<|end|><|user|>1 + 2<|end|><|assistant|>"
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert sum(weight.numel() for weight in model.parameters()) == parameters
        assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (
            model.config.eos_token_id,
            model.config.pad_token_id,
        )
        assert all(torch.equal(weight, weight.bfloat16().float()) for weight in model.parameters())
        logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits
        # A random start is near uniform over its 128 tokens: ln 128 = 4.85.
        assert abs(-logits.log_softmax(-1).mean() - 4.85) < 0.1


def test_a_folder_is_taken_as_it_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_model(str(tiny)) == []
    assert prepare_model(str(tiny)) == tiny
    monkeypatch.chdir(tiny.parent)
    assert prepare_model("./tiny-1") == tiny


def test_a_folder_that_lacks_a_part_is_refused(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(
        ModelError, match=r"model.path is .*, a folder without a tokenizer; expected transformers' format"
    ):
        check_model(str(tiny))
    with pytest.raises(ModelError, match=r"without config.json, weights"):
        prepare_model(str(tmp_path))


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere/at/all", "several/folders/deep"])
def test_a_path_that_does_not_exist_is_refused(path: str) -> None:
    with pytest.raises(ModelError, match=f'model.path is "{path}", which does not exist; expected .*"tiny"'):
        check_model(path)


def test_a_mistyped_name_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, ConnectionError("no route"))
    with pytest.raises(ModelError, match="nearest: smollm2-135m-instruct"):
        check_model("smollm2-135m")
    with pytest.raises(ModelError, match="expected a folder, a Hugging Face name, or"):
        check_model("a name")
    answer_with(monkeypatch, not_found())
    with pytest.raises(ModelError, match="nearest: tiny-untied"):
        check_model("tiny-unteid")


def test_a_hub_name_is_noted_without_a_connection_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, ConnectionError("no route"))
    (note,) = check_model("owner/model-of-a-test")
    assert 'not checked: model.path is "owner/model-of-a-test"' in note
    with pytest.raises(ModelError, match=r"hub cannot be reached .*; connect, or set model.path to a folder"):
        prepare_model("owner/model-of-a-test")
    answer_with(monkeypatch, None)
    assert check_model("owner/model-of-a-test") == []


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SMOLLM2_PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="for which no-such-package is missing; pip install"):
        check_model("smollm2-135m-instruct", tmp_path)


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"the cache folder .*file.* cannot be made .*set RAPID_CACHE"):
        check_model("tiny", tmp_path / "file" / "cache")


def test_a_conversion_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "CONVERSION", "raise SystemExit('the file is damaged')")
    with pytest.raises(ModelError, match="ended with status 1: the file is damaged"):
        prepare_model("smollm2-135m-instruct", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["smollm2-135m-instruct.lock"]


def test_checks_import_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rapid.models import check_model, prepare_model\n"
        "cache = Path(sys.argv[1]); check_model('smollm2-135m-instruct', cache); prepare_model('tiny', cache)\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'ray'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each or os.getcwd() for each in sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout == "[]\n"
