"""Writes the generated files of `deploy/grafana`, `deploy/prometheus` and `deploy/kubernetes`."""

from __future__ import annotations

from pathlib import Path

from telemetry.dashboards.alerts import render_prometheus_rule, render_rules
from telemetry.dashboards.board import to_json
from telemetry.dashboards.health import health
from telemetry.dashboards.ledger import ledger
from telemetry.dashboards.staleness import staleness
from telemetry.dashboards.throughput import throughput


def generated_files() -> dict[Path, str]:
    """Text of each generated file, by its path under the repository's root."""
    boards = {"health": health(), "staleness": staleness(), "throughput": throughput(), "ledger": ledger()}
    files = {Path(f"deploy/grafana/dashboards/{name}.json"): to_json(board) for name, board in boards.items()}
    files[Path("deploy/prometheus/rules/rapid.yml")] = render_rules()
    files[Path("deploy/kubernetes/base/rules.yaml")] = render_prometheus_rule()
    return files


if __name__ == "__main__":
    for path, text in generated_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
