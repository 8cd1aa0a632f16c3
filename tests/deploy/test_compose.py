from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from tests.deploy.kit import ROOT, faults, read

FILES = ("docker-compose.yml", "compose.gpu.yaml")
SERVICES: dict[str, Any] = read("docker-compose.yml")["services"]


@pytest.mark.parametrize("name", FILES)
def test_the_files_follow_the_compose_specification(name: str) -> None:
    assert faults(read(name), "compose-spec.json") == []


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [("head", "comand", "x"), ("actor", "restart", 3), ("grafana", "healthcheck", {"tests": "x"})],
)
def test_the_specification_finds_a_mistake(service: str, key: str, value: object) -> None:
    broken = copy.deepcopy(read("docker-compose.yml"))
    broken["services"][service][key] = value
    assert faults(broken, "compose-spec.json")


def test_nothing_is_published_beyond_loopback_unless_asked() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("${RAPID_BIND:-127.0.0.1}:") for port in published)


def test_passwords_come_from_the_environment_and_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = dict(re.findall(r"(\w*(?:PASSWORD|TOKEN)): (.+)", text))
    assert secrets.pop("HF_TOKEN") == "${HF_TOKEN:-}"  # models that anybody may fetch need none
    assert set(secrets) == {"GF_SECURITY_ADMIN_PASSWORD", "RAY_AUTH_TOKEN"}
    assert all(re.fullmatch(r"\$\{\w+:\?.+\}", value) for value in secrets.values())


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_watched_restarted_pinned_and_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"].startswith(("on-failure", "unless-stopped"))
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    assert "user" not in service  # the images' own, none of which is root


def test_hub_learner_actors_and_prometheus_see_one_folder_of_runs() -> None:
    for name in ("head", "actor"):
        assert {"runs:/runs", "models:/models"} <= set(SERVICES[name]["volumes"])
    assert "runs:/runs:ro" in SERVICES["prometheus"]["volumes"]


def test_grafana_reaches_prometheus_and_no_node_of_ray() -> None:
    assert not set(SERVICES["grafana"]["networks"]) & set(SERVICES["head"]["networks"])
    assert set(SERVICES["grafana"]["networks"]) <= set(SERVICES["prometheus"]["networks"])


def test_gpus_go_to_the_services_that_the_main_file_has() -> None:
    gpu = read("compose.gpu.yaml")["services"]
    assert set(gpu) == {"head", "actor"} <= set(SERVICES)
    for service in gpu.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert service["build"]["args"]["DEVICE"] == "gpu"


def test_every_variable_of_the_files_is_explained_in_the_guide() -> None:
    used = {name for file in FILES for name in re.findall(r"\$\{(\w+)", (ROOT / file).read_text())}
    guide = (ROOT / "docs/deploy.md").read_text()
    assert [name for name in sorted(used) if f"`{name}`" not in guide] == []
