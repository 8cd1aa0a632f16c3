from __future__ import annotations

import copy
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from rapid.config import RapidConfig
from rapid.recipe import load_recipe
from telemetry.exporter import ports_of
from telemetry.metric import PARTS
from tests.deploy.kit import ROOT, faults, read, read_all

BASE = "deploy/kubernetes/base"
CLUSTER = read(f"{BASE}/cluster.yaml")
JOB = read(f"{BASE}/job.yaml")
POLICY = read(f"{BASE}/network.yaml")
MONITOR = read(f"{BASE}/monitor.yaml")
RULES = read(f"{BASE}/rules.yaml")


def check(document: dict[str, Any]) -> list[str]:
    """Faults of an object by the schema of its kind."""
    kubernetes = {
        "PersistentVolumeClaim": "io.k8s.api.core.v1.PersistentVolumeClaim",
        "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    }
    if definition := kubernetes.get(document["kind"]):
        return faults(document, "kubernetes-1.34.json", definition)
    if document["kind"] in ("PodMonitor", "PrometheusRule"):
        return faults(document, f"{document['kind'].lower()}-v0.80.json")
    return faults(document, "kuberay-v1.json", document["kind"])


def job_config() -> RapidConfig:
    """What the job's command comes to."""
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[:2] == ["rapid", "train"]
    recipe = Path(words[2]).relative_to("/app")  # where the image has the repository
    return load_recipe(ROOT / recipe, [words[at + 1] for at, word in enumerate(words) if word == "--set"])


@pytest.mark.parametrize("name", ["cluster", "job", "monitor", "network", "rules", "volumes"])
def test_the_manifests_follow_their_schemas(name: str) -> None:
    for document in read_all(f"{BASE}/{name}.yaml"):
        assert check(document) == []


def _set(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    broken = copy.deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place: Any = broken
    for part in parents:
        place = place[part]
    place[last] = value
    return broken


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        (CLUSTER, "spec/enableInTreeAutoscalling", True),
        (CLUSTER, "spec/workerGroupSpecs/1/maxReplicas", "8"),
        (CLUSTER, "spec/workerGroupSpecs/1/rayStartParams/num-cpus", 1),
        (CLUSTER, "spec/workerGroupSpecs/1/template/spec/containers/0/imagePullPolcy", "Always"),
        (CLUSTER, "spec/authOptions/mode", "on"),
        (JOB, "spec/entryPoint", "rapid"),
        (MONITOR, "spec/podMetricsEndpoints/0/interval", "soon"),
        (MONITOR, "spec/podMetricsEndpoints/0/relabelings/0/targetlabel", "part"),
        (RULES, "spec/groups/0/rules/0/for", "soon"),
        (RULES, "spec/groups/0/rules/0/annotation", {}),
        (RULES, "spec/group", []),
        (POLICY, "spec/ingress/1/ports/0/prt", 1),
    ],
)
def test_the_schemas_find_a_mistake(document: dict[str, Any], path: str, value: object) -> None:
    assert check(_set(document, path, value))


def test_rays_own_autoscaler_reads_the_groups_as_meant() -> None:
    named = {**CLUSTER, "metadata": {"name": "rapid", "namespace": "rapid"}}
    types = _derive_autoscaling_config_from_ray_cr(named)["available_node_types"]
    said = {name: (each["min_workers"], each["max_workers"]) for name, each in types.items()}
    assert said == {"headgroup": (0, 0), "learner": (1, 1), "actors": (1, 8)}
    resources = {name: {key: each["resources"].get(key) for key in ("CPU", "GPU")} for name, each in types.items()}
    assert resources["headgroup"] == {"CPU": 0, "GPU": None}
    assert types["learner"]["resources"].items() >= {"CPU": 8, "learner": 1}.items()
    assert types["actors"]["resources"].items() >= {"CPU": 8, "actor": 1}.items()


def test_a_node_of_each_group_holds_what_the_job_asks_for() -> None:
    config = job_config()
    types = _derive_autoscaling_config_from_ray_cr({**CLUSTER, "metadata": {"name": "rapid", "namespace": "rapid"}})
    learner, actor = (types["available_node_types"][name]["resources"] for name in ("learner", "actors"))
    assert config.learner.threads is not None
    assert config.learner.threads + 0.1 <= learner["CPU"]  # 0.1 for the hub
    assert config.actors.cpus <= actor["CPU"] < 2 * config.actors.cpus
    assert config.learner.resource in learner
    assert config.actors.resource in actor
    assert config.actors.max == CLUSTER["spec"]["workerGroupSpecs"][1]["maxReplicas"]


def test_the_job_runs_on_this_cluster_as_its_recipe_allows() -> None:
    assert JOB["spec"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    config = job_config()
    assert config.run.directory == "/runs"
    assert config.telemetry.host == "auto"


def test_pods_monitor_and_policy_name_the_ports_that_the_parts_serve() -> None:
    wanted = {part: ports_of(job_config().telemetry.port, part, 0)[0] for part in PARTS}
    groups = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
    ports = [port for group in groups for port in group["template"]["spec"]["containers"][0]["ports"]]
    assert {port["name"]: port["containerPort"] for port in ports}.items() >= wanted.items()
    assert {endpoint["port"] for endpoint in MONITOR["spec"]["podMetricsEndpoints"]} == set(wanted)
    assert {port["port"] for port in POLICY["spec"]["ingress"][-1]["ports"]} == set(wanted.values())


def test_the_monitor_labels_pods_as_the_rules_ask() -> None:
    asked = {name for rule in RULES["spec"]["groups"][0]["rules"] for name in re.findall(r'job="(\w+)"', rule["expr"])}
    for endpoint in MONITOR["spec"]["podMetricsEndpoints"]:
        labels = {each["targetLabel"]: each for each in endpoint["relabelings"]}
        assert labels.keys() >= {"run", "part", "process"}
        assert {labels["job"]["replacement"]} == asked


def test_every_pod_sees_the_runs_and_the_models_and_none_is_root() -> None:
    templates = [CLUSTER["spec"]["headGroupSpec"]["template"]]
    templates += [group["template"] for group in CLUSTER["spec"]["workerGroupSpecs"]]
    claims = {claim["metadata"]["name"] for claim in read_all(f"{BASE}/volumes.yaml")}
    for template in templates:
        spec = template["spec"]
        (container,) = spec["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"runs": "/runs", "models": "/models", "shm": "/dev/shm"}
        claimed = {each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "emptyDir" not in each}
        assert claimed == claims
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kustomize comes with kubectl")
@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_kustomize_makes_manifests_that_follow_their_schemas(overlay: str) -> None:
    command = ["kubectl", "kustomize", ROOT / "deploy/kubernetes" / overlay]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    documents = [each for each in yaml.safe_load_all(made) if each["kind"] != "Namespace"]
    assert {each["kind"] for each in documents} == {
        *("NetworkPolicy", "PersistentVolumeClaim", "PodMonitor", "PrometheusRule", "RayCluster"),
    }
    for document in documents:
        assert document["metadata"]["namespace"] == "rapid"
        assert check(document) == []
    (cluster,) = [each for each in documents if each["kind"] == "RayCluster"]
    groups = cluster["spec"]["workerGroupSpecs"]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    wanted = "rapid:gpu" if overlay == "gpu" else "rapid:cpu"
    assert {each["image"] for each in containers} == {wanted}
    assert all(("nvidia.com/gpu" in each["resources"]["limits"]) is (overlay == "gpu") for each in containers)
