from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from telemetry import catalogue
from telemetry.catalogue import METRICS
from telemetry.config import TelemetryConfig
from telemetry.errors import ExporterError
from telemetry.exporter import Exporter
from telemetry.run_dir import RunDirectory
from tests.telemetry.fakes import make_record
from tests.telemetry.scrape import scrape, value


@pytest.fixture
def learner(run_dir: RunDirectory) -> Iterator[Exporter]:
    exporter = Exporter("learner-0", TelemetryConfig(), run_dir.path)
    yield exporter
    exporter.close()


@pytest.fixture
def hub() -> Iterator[Exporter]:
    exporter = Exporter("hub", TelemetryConfig())
    yield exporter
    exporter.close()


def test_a_scrape_shows_what_was_set_counted_and_observed(hub: Exporter) -> None:
    hub.set(catalogue.HUB_VERSION, 7)
    hub.inc(catalogue.HUB_LEASES_GRANTED)
    hub.inc(catalogue.HUB_LEASES_GRANTED, 2)
    hub.inc(catalogue.HUB_GROUPS_STALE, outcome="requeued")
    hub.observe(catalogue.HUB_BATCH_WAIT, 0.3)
    samples = scrape(hub)
    assert value(samples, catalogue.HUB_VERSION) == 7
    assert value(samples, catalogue.HUB_LEASES_GRANTED) == 3
    assert value(samples, catalogue.HUB_GROUPS_STALE, outcome="requeued") == 1
    # Buckets count upwards: 0.3 s is above the bound of 0.2 and below that of 0.5.
    assert value(samples, catalogue.HUB_BATCH_WAIT, "_bucket", le="0.2") == 0
    assert value(samples, catalogue.HUB_BATCH_WAIT, "_bucket", le="0.5") == 1


def test_a_process_serves_the_metrics_of_its_part_and_no_others(hub: Exporter) -> None:
    served = {name.removesuffix("_created") for name, _ in scrape(hub)}
    assert served
    assert all(name.startswith("rapid_hub_") for name in served)


def test_everything_served_is_in_the_catalogue(learner: Exporter) -> None:
    learner.record(make_record(1, diagnostics={"by_lag": {0: {"tokens": 10, "ess_fraction": 0.9}}}))
    suffixes = ("", "_bucket", "_count", "_sum", "_created")
    known = {
        name.removesuffix("_total" if suffix == "_created" else "") + suffix for name in METRICS for suffix in suffixes
    }
    assert {name for name, _ in scrape(learner)} <= known


def test_quantiles_by_lag_and_what_is_measured_now_and_then_are_served(learner: Exporter) -> None:
    by_lag = {"2": {"ratio_p05": 0.7, "ratio_p50": 1.0, "ratio_p95": 1.5}, "3": {"ratio_p05": None}}
    learner.record(make_record(1, diagnostics={"by_lag": by_lag, "gradient_cosine": 0.25, "kl_reference": 0.5}))
    learner.record(make_record(2, diagnostics={"entropy": 1.5, "micro_batches": 3}))
    samples = scrape(learner)
    for quantile, expected in (("0.05", 0.7), ("0.5", 1.0), ("0.95", 1.5)):
        assert value(samples, catalogue.LEARNER_LAG_QUANTILE, lag="2", quantile=quantile) == expected
    assert value(samples, catalogue.LEARNER_GRADIENT_COSINE) == 0.25, "kept until it is measured again"
    assert value(samples, catalogue.LEARNER_KL_REFERENCE) == 0.5
    assert value(samples, catalogue.LEARNER_ENTROPY) == 1.5


def test_a_record_feeds_the_metrics_of_its_keys(learner: Exporter) -> None:
    lags = {0: {"tokens": 10, "ess_fraction": 0.9, "ratio_mean": None}, 1: {"tokens": 30}}
    learner.record(make_record(1, reward_mean=0.5, tokens_trained=100, train_s=3.0, diagnostics={"by_lag": lags}))
    learner.record(make_record(2, reward_mean=0.75, tokens_trained=50, train_s=1.0, logprob_diff_mean=None))
    samples = scrape(learner)
    assert value(samples, catalogue.LEARNER_REWARD) == 0.75
    assert value(samples, catalogue.LEARNER_TOKENS) == 150
    assert value(samples, catalogue.LEARNER_TRAIN, "_sum") == 4.0
    assert value(samples, catalogue.LEARNER_LAG_TOKENS, lag="1") == 30
    assert value(samples, catalogue.LEARNER_LAG_ESS, lag="0") == 0.9
    assert value(samples, catalogue.LEARNER_LOGPROB_DIFF) == 0.008


def test_label_values_that_are_gone_read_zero(hub: Exporter) -> None:
    hub.set_all(catalogue.HUB_BUFFERED, "lag", {0: 4, 1: 2})
    hub.set_all(catalogue.HUB_BUFFERED, "lag", {1: 5})
    samples = scrape(hub)
    assert value(samples, catalogue.HUB_BUFFERED, lag="0") == 0
    assert value(samples, catalogue.HUB_BUFFERED, lag="1") == 5


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (lambda hub: hub.inc(catalogue.HUB_VERSION), "is a gauge of hub"),
        (lambda hub: hub.set(catalogue.ACTOR_BUSY, 1.0), "is a gauge of actor"),
        (lambda hub: hub.set(catalogue.HUB_ENTRIES, 1.0), r"with labels \['state'\]"),
        (lambda hub: hub.set_all(catalogue.HUB_ENTRIES, "lag", {"0": 1}), r"with labels \['state'\]"),
    ],
)
@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_metric_used_against_its_declaration_is_refused_even_when_disabled(
    use: object, named: str, is_enabled: bool
) -> None:
    exporter = Exporter("hub", TelemetryConfig(exporter=is_enabled))
    try:
        with pytest.raises(ExporterError, match=named):
            use(exporter)  # type: ignore[operator]
    finally:
        exporter.close()


def test_a_disabled_exporter_serves_nothing_and_bears_every_call(run_dir: RunDirectory) -> None:
    exporter = Exporter("learner-0", TelemetryConfig(exporter=False), run_dir.path)
    exporter.record(make_record(1, diagnostics={"by_lag": {0: {"tokens": 10}}}))
    exporter.set(catalogue.LEARNER_SETTLED, 4)
    exporter.close()
    assert exporter.address is None
    assert not list((run_dir.path / "exporters").iterdir())


def test_others_find_the_address_while_it_is_served(run_dir: RunDirectory) -> None:
    exporter = Exporter("actor-3", TelemetryConfig(), run_dir.path)
    path = run_dir.path / "exporters" / "actor-3.json"
    labels = {"run": "trial", "part": "actor", "process": "actor-3"}
    assert json.loads(path.read_text()) == [{"targets": [exporter.address], "labels": labels}]
    exporter.close()
    exporter.close()
    assert not path.exists()


def test_it_listens_on_loopback_alone_by_default(hub: Exporter) -> None:
    assert hub.address is not None
    assert hub.address.startswith("127.0.0.1:")


def test_a_taken_port_is_named_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ExporterError, match=rf"hub on 127.0.0.1:{port}: .* telemetry.port to a free one"):
            Exporter("hub", TelemetryConfig(port=port))


def test_actors_of_one_node_take_the_first_free_ports_whatever_their_numbers() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        base = probe.getsockname()[1] - 100
    actors = [Exporter(name, TelemetryConfig(port=base)) for name in ("actor-7", "actor-3")]
    try:
        assert actors[0].address == f"127.0.0.1:{base + 100}"
        assert actors[1].address is not None
        assert base + 101 <= int(actors[1].address.split(":")[1]) < base + 200
    finally:
        for actor in actors:
            actor.close()


def test_an_address_that_this_machine_does_not_have_is_refused_at_once() -> None:
    with pytest.raises(ExporterError, match=r"actor-0 on 192\.0\.2\.1:9400 to .*: Cannot assign"):
        Exporter("actor-0", TelemetryConfig(host="192.0.2.1", port=9300))


def test_all_addresses_are_no_address_that_prometheus_could_dial() -> None:
    with pytest.raises(ValueError, match="take 'auto'"):
        TelemetryConfig(host="0.0.0.0")


@pytest.mark.parametrize("process", ["reporter", "actor-x", ""])
def test_a_process_that_is_no_part_is_refused(process: str) -> None:
    with pytest.raises(ExporterError, match="expected one of"):
        Exporter(process, TelemetryConfig())
