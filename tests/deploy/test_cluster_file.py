from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import jsonschema
import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.deploy.kit import ROOT, read

FILE = "deploy/cluster.yaml"


def test_ray_takes_the_cluster_file() -> None:
    config = prepare_config(read(FILE))
    validate_config(config)
    types = config["available_node_types"]
    assert types["actor"]["min_workers"] < types["actor"]["max_workers"]
    assert (types["learner"]["min_workers"], types["learner"]["max_workers"]) == (1, 1)
    assert types["head"]["resources"] == {"CPU": 0}
    assert config["max_workers"] == types["learner"]["max_workers"] + types["actor"]["max_workers"]


@pytest.mark.parametrize(("key", "value"), [("max_worker", 3), ("setup_commands", "make"), ("provider", {})])
def test_ray_finds_a_mistake_in_the_cluster_file(key: str, value: object) -> None:
    config: dict[str, Any] = copy.deepcopy(prepare_config(read(FILE)))
    config[key] = value
    with pytest.raises(jsonschema.ValidationError):
        validate_config(config)


def test_nodes_are_set_up_from_the_pinned_requirements() -> None:
    config = read(FILE)
    commands = "\n".join([*config["setup_commands"], *config["head_setup_commands"]])
    assert "make VENV=$HOME/venv DEVICE=gpu $HOME/venv/.installed-gpu" in commands
    assert "STAMP := $(VENV)/.installed-$(DEVICE)" in (ROOT / "Makefile").read_text()
    installed = re.findall(r"pip install (\S+)", commands)
    assert installed
    assert all("==" in package for package in installed)


def test_no_secret_is_in_the_file_and_what_must_be_changed_is_marked() -> None:
    text = (ROOT / FILE).read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|\b(ami|fs)-[0-9a-f]{8,}", text)
    assert read(FILE)["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert "ami-CHANGE-ME" in text
    assert "fs-CHANGE-ME" in text


def test_a_job_takes_the_code_along_and_leaves_runs_caches_and_data(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, tree / name)
    travels = {"rapid/cli.py", "recipes/tiny.toml", "tasks/examples/digits.py", "learner/data.py"}
    stays = {
        *("runs/first/checkpoints/step-000020/model/model.safetensors", "data/train.jsonl", ".venv/bin/python"),
        *(".git/HEAD", "rapid/__pycache__/cli.cpython-311.pyc", ".mypy_cache/x", "model.gguf", "docs/deploy.md"),
        ".env",
    }
    for name in (*travels, *stays):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    package = tmp_path / "package.zip"
    create_package(str(tree), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with ZipFile(package) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    assert files - {".gitignore", ".rayignore"} == travels
