"""Prometheus' target files follow the processes of a run, on whatever machine they are and however they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from telemetry.config import TelemetryConfig, own_host_towards
from telemetry.exporter import Exporter
from telemetry.run_dir import RunDirectory
from telemetry.targets import Targets


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def status(hub: str = "10.0.0.1:1000", **clients: str) -> dict[str, Any]:
    """Keys are names, with "_" for "-"."""
    listed = [
        {"name": name.replace("_", "-"), "role": name.split("_")[0], "metrics_address": address}
        for name, address in clients.items()
    ]
    return {"metrics_address": hub, "clients": listed}


def read(run_dir: RunDirectory) -> dict[str, str]:
    files = {path.stem: json.loads(path.read_text()) for path in (run_dir.path / "exporters").glob("*.json")}
    return {name: content[0]["targets"][0] for name, content in files.items()}


def test_processes_of_other_machines_are_written_as_they_come(run_dir: RunDirectory) -> None:
    targets = Targets(run_dir.path)
    targets.look(status(learner="10.0.0.2:7"))
    targets.look(status(learner="10.0.0.2:7", actor_0="10.0.0.3:8", observer="", actor_1=""))
    assert read(run_dir) == {"hub": "10.0.0.1:1000", "learner-0": "10.0.0.2:7", "actor-0": "10.0.0.3:8"}
    content = json.loads((run_dir.path / "exporters" / "actor-0.json").read_text())
    assert content[0]["labels"] == {"run": run_dir.name, "part": "actor", "process": "actor-0"}


def test_one_file_beside_the_run_names_all_processes(run_dir: RunDirectory) -> None:
    targets = Targets(run_dir.path)
    launcher = Exporter("launcher", TelemetryConfig(), run_dir.path)
    everything = run_dir.path.parent / ".targets" / f"{run_dir.name}.json"
    try:
        targets.look(status(learner="10.0.0.2:7"))
        groups = json.loads(everything.read_text())
        assert {group["labels"]["process"]: group["targets"] for group in groups} == {
            "hub": ["10.0.0.1:1000"],
            "launcher": [launcher.address],
            "learner-0": ["10.0.0.2:7"],
        }
        assert {group["labels"]["run"] for group in groups} == {run_dir.name}
    finally:
        launcher.close()
    targets.close()
    assert not everything.exists()


def test_a_process_that_was_started_anew_has_its_new_address(run_dir: RunDirectory) -> None:
    targets = Targets(run_dir.path)
    targets.look(status(actor_0="10.0.0.3:8"))
    targets.look(status(actor_0="10.0.0.4:9"))
    assert read(run_dir)["actor-0"] == "10.0.0.4:9"


def test_a_process_that_is_gone_is_removed_but_one_that_has_not_said_hello_yet_is_not(run_dir: RunDirectory) -> None:
    clock = Clock()
    targets = Targets(run_dir.path, clock)
    actor = Exporter("actor-0", TelemetryConfig(), run_dir.path)
    launcher = Exporter("launcher", TelemetryConfig(), run_dir.path)
    try:
        targets.look(status())
        clock.now = 29.0
        targets.look(status())
        assert "actor-0" in read(run_dir)
        targets.look(status(actor_0=actor.address or ""))
        clock.now = 31.0
        targets.look(status())  # silent since now
        assert "actor-0" in read(run_dir)
        clock.now = 61.0
        targets.look(status())
        assert set(read(run_dir)) == {"hub", "launcher"}
    finally:
        actor.close()
        launcher.close()


def test_what_a_killed_run_left_is_removed_at_the_start_and_what_was_written_at_the_end(run_dir: RunDirectory) -> None:
    leftover = run_dir.path / "exporters" / "actor-7.json"
    leftover.write_text("[]")
    targets = Targets(run_dir.path)
    assert not leftover.exists()
    targets.look(status(actor_0="10.0.0.3:8"))
    targets.look(None)
    assert read(run_dir)
    targets.close()
    assert read(run_dir) == {}


@pytest.mark.parametrize("name", ["../../evil", "actor-../x", "reporter", "hub/.."])
def test_a_name_that_is_no_process_becomes_no_file(run_dir: RunDirectory, name: str) -> None:
    targets = Targets(run_dir.path)
    targets.look({"metrics_address": "", "clients": [{"name": name, "role": "actor", "metrics_address": "1.2.3.4:5"}]})
    assert list(run_dir.path.rglob("*evil*")) == []
    assert read(run_dir) == {}


def test_metrics_face_the_hub(tmp_path: Path) -> None:
    assert own_host_towards("tcp://127.0.0.1:5555") == "127.0.0.1"
    assert own_host_towards("tcp://no.such.host.invalid:5555") == "127.0.0.1"
    assert TelemetryConfig().facing("tcp://127.0.0.1:5555").host == "127.0.0.1"
    assert TelemetryConfig(host="10.9.9.9").facing("tcp://127.0.0.1:5555").host == "10.9.9.9"


def test_metrics_face_a_hub_on_another_address_with_the_interface_that_leads_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    class Probe:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *_: object) -> None: ...
        def connect(self, peer: tuple[str, int]) -> None:
            assert peer == ("192.0.2.7", 5555)

        def getsockname(self) -> tuple[str, int]:
            return ("192.0.2.1", 40000)

    monkeypatch.setattr(socket, "socket", Probe)
    assert TelemetryConfig().facing("tcp://192.0.2.7:5555").host == "192.0.2.1"
