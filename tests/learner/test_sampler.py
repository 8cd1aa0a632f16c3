from __future__ import annotations

import json
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from learner.loop import run_learner
from learner.sampler import Sampler, describe_group
from learner.scripted_hub import ScriptedHub
from protocol.version import Lineage, PolicyVersion
from telemetry.config import TelemetryConfig
from telemetry.samples import read_samples
from telemetry.timeline import read_timeline
from tests.learner.learner_kit import VOCABULARY, make_groups, make_model, make_settings


class Numbers:
    """A tokenizer whose text of a token is its number."""

    def decode(self, token_ids: list[int], **options: object) -> str:
        return "".join(f" {token_id}" for token_id in token_ids)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("model"))
    tokenizer = Tokenizer(models.WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def test_a_sample_holds_the_best_and_the_worst_completion_with_versions_and_lags(model_dir: Path) -> None:
    group = msgspec.structs.replace(
        make_groups(model_dir, PolicyVersion(1, 0), count=1)[0],
        rewards=np.array([0.5, -1.0, 2.0], np.float32),
        # The third completion, of five tokens, saw an update after its second.
        span_counts=np.array([1, 1, 2], np.int32),
        span_lengths=np.array([4, 2, 2, 3], np.int32),
        span_incarnations=np.array([1, 1, 1, 2], np.int32),
        span_steps=np.array([3, 3, 3, 4], np.int32),
        reward_parts={"format": np.array([0.0, np.nan, 1.0], np.float32)},
        stop_reasons=["stop", "length", "stop"],
        actor="actor-1",
    )
    # Incarnation 2 branched off at step 2: from (1, 3) one step back, then two forward to (2, 4).
    sample = describe_group(group, PolicyVersion(2, 5), Lineage((2,)), Numbers())
    ids = group.token_ids.tolist()
    assert (sample["step"], sample["incarnation"], sample["entry"], sample["actor"]) == (5, 2, "0:0", "actor-1")
    assert sample["reward_mean"] == pytest.approx(0.5)
    assert sample["prompt"] == "".join(f" {token_id}" for token_id in group.prompt_token_ids)
    assert sample["best"] == {
        "tokens": [f" {token_id}" for token_id in ids[6:]],
        "spans": [[2, "1.3", 3], [3, "2.4", 0]],
        "reward": 2.0,
        "parts": {"format": 1.0},
        "stop": "stop",
        "num_tokens": 5,
    }
    assert (sample["worst"]["reward"], sample["worst"]["parts"]) == (-1.0, {"format": None})
    assert sample["worst"]["tokens"] == [f" {token_id}" for token_id in ids[4:6]]
    json.dumps(sample, allow_nan=False)


def test_a_run_leaves_samples_of_every_nth_step_and_a_timeline(model_dir: Path, tmp_path: Path) -> None:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version))
    telemetry = TelemetryConfig(samples_every=2, samples_groups=3)
    run_learner(make_settings(tmp_path, model_dir, hub.address, telemetry=telemetry), threading.Event())
    hub.close()
    samples = read_samples(tmp_path / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    # Three of the four groups of a batch: those at 0, 4/3 and 8/3.
    assert [sample["entry"] for sample in samples[:3]] == ["0:0", "0:1", "0:2"]
    # The script's groups all come from version 1.0, so that at step 4 they are three steps behind.
    assert samples[-1]["best"]["spans"][0][1:] == ["1.0", 3]
    told = [(span.what, span.of) for span in read_timeline(tmp_path / "timeline" / "learner-0.jsonl")]
    assert [one for one in told if one[0] == "train"] == [("train", f"step {step}") for step in (1, 2, 3, 4)]
    assert told[0][0] == "start"
    assert ("publish", "weights 1.1") in told
    assert ("checkpoint", "1.4") in told
    assert any(what == "wait" and of.startswith("a batch") for what, of in told)


def test_samples_can_be_switched_off_and_a_model_without_a_tokenizer_has_none(model_dir: Path, tmp_path: Path) -> None:
    groups, version = make_groups(model_dir, PolicyVersion(1, 0)), PolicyVersion(1, 1)
    for name, changes in (
        ("off", {"telemetry": TelemetryConfig(samples_every=0)}),
        ("bare", {"model_path": str(tmp_path)}),
    ):
        (tmp_path / name).mkdir()
        settings = make_settings(tmp_path / name, model_dir, "tcp://127.0.0.1:1")
        sampler = Sampler(settings.model_copy(update=changes), tmp_path / name / "samples.jsonl")
        sampler.offer(groups, version)
        sampler.close()
        assert not (tmp_path / name / "samples.jsonl").exists()
