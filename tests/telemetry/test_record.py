from __future__ import annotations

import json
import math

import numpy as np
import pytest

from telemetry.errors import RecordError
from telemetry.record import KEYS, check_record, current_line, elapsed_s, encode_record
from tests.telemetry.fakes import make_record

CONTRACT = (
    "step incarnation wall_s reward_mean groups groups_filtered tokens_trained completion_tokens_mean lag_mean lag_max "
    "ratio_mean clipped_fraction ess_fraction kl_behaviour logprob_diff_mean loss grad_norm lr wait_s train_s "
    "publish_s generated_tokens_per_s trained_tokens_per_s actors eval"
)


def test_keys_are_those_of_the_contract() -> None:
    assert " ".join(key.name for key in KEYS) == CONTRACT


def test_a_record_survives_json_unchanged() -> None:
    record = make_record(3, eval={"pass@1": 0.5}, logprob_diff_mean=None)
    assert json.loads(encode_record(check_record(record))) == record


def test_numbers_of_numpy_become_plain_ones() -> None:
    checked = check_record(make_record(1, groups=np.int32(7), loss=np.float32(0.5), diagnostics={"a": [np.int64(2)]}))
    assert (checked["groups"], checked["loss"], checked["diagnostics"]) == (7, 0.5, {"a": [2]})
    assert type(checked["groups"]) is int


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverging_loss_is_written_as_null_with_a_warning(bad: float, caplog: pytest.LogCaptureFixture) -> None:
    checked = check_record(make_record(1, loss=bad, diagnostics={"by_lag": {0: {"kl": bad}}}))
    assert checked["loss"] is None
    assert checked["diagnostics"] == {"by_lag": {"0": {"kl": None}}}
    assert "loss is" in caplog.text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"groups": 2.0}, "groups = 2.0 of type float, expected int"),
        ({"actors": True}, "actors = True of type bool, expected int"),
        ({"loss": "low"}, "loss = 'low' of type str, expected float"),
        ({"loss": None}, "loss = None"),
        ({"eval": 0.5}, "expected dict or null"),
        ({"speed": 1.0}, r"unknown \['speed'\]"),
        ({"diagnostics": {"model": object()}}, "diagnostics.model holds a object"),
    ],
)
def test_a_record_that_breaks_the_contract_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(RecordError, match=named):
        check_record(make_record(1, **changes))


def test_a_missing_key_is_named() -> None:
    record = make_record(1)
    del record["lag_max"]
    with pytest.raises(RecordError, match=r"missing \['lag_max'\]"):
        check_record(record)


def test_a_resume_supersedes_all_later_steps_of_the_incarnation_before() -> None:
    # Incarnation 1 reached step 5, its checkpoint was of step 2; incarnation 2 has done step 3 so far.
    history = [make_record(step, 1) for step in range(1, 6)] + [make_record(3, 2)]
    kept = [(record["incarnation"], record["step"]) for record in current_line(history)]
    assert kept == [(1, 1), (1, 2), (2, 3)]


def test_working_time_goes_on_where_a_clock_begins_anew() -> None:
    # 10 s, 20 s | the clock begins anew: 20 + 3, 20 + 9 | and once more, already beyond the 9 s before: 29 + 10.
    walls = ((1, 1, 10.0), (2, 1, 20.0), (3, 2, 3.0), (4, 2, 9.0), (5, 3, 10.0))
    records = [make_record(step, incarnation, wall_s=wall) for step, incarnation, wall in walls]
    assert elapsed_s(records) == [10.0, 20.0, 23.0, 29.0, 39.0]
