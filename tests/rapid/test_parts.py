from __future__ import annotations

import pytest

from rapid import parts
from telemetry.config import TelemetryConfig


def test_metrics_are_served_at_the_nodes_address_where_the_configuration_says_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts.ray.util, "get_node_ip_address", lambda: "10.1.2.3")
    assert parts.telemetry_here(TelemetryConfig(host="node", port=9300)) == TelemetryConfig(host="10.1.2.3", port=9300)


def test_any_other_address_stays_as_it_is() -> None:
    assert parts.telemetry_here(TelemetryConfig()) == TelemetryConfig()
