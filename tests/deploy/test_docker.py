from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from deploy.docker import check_build, healthy
from deploy.docker.check_build import copy
from deploy.docker.dockerfile import DockerfileError, Ignore, Instruction, read_dockerfile, substitute
from deploy.docker.root import Root, StepError
from rapid.recipe import load_recipe
from tests.deploy.kit import ROOT, read

DOCKER = ROOT / "deploy/docker"
DOCKERFILE = read_dockerfile(DOCKER / "Dockerfile")
IGNORE = Ignore((ROOT / ".dockerignore").read_text())


def test_the_linter_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_stage_stands_on_a_pinned_image() -> None:
    assert len(DOCKERFILE.stages) == 2
    for stage in DOCKERFILE.stages:
        assert re.fullmatch(r"debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", stage.base)


def test_the_image_does_not_run_as_root_and_keeps_no_package_lists() -> None:
    last = DOCKERFILE.stages[-1].instructions
    (user,) = [each.text for each in last if each.name == "USER"]
    assert user.split(":")[0] not in ("0", "root")
    for each in (each for stage in DOCKERFILE.stages for each in stage.instructions):
        if each.name == "RUN" and "apt-get install" in each.text:
            assert each.text.endswith("rm -rf /var/lib/apt/lists/*")
            assert "--no-install-recommends" in each.text


def test_what_is_copied_is_there_and_not_ignored() -> None:
    for stage in DOCKERFILE.stages:
        for each in stage.instructions:
            if each.name == "COPY" and "from" not in each.flags:
                for source in each.words()[:-1]:
                    assert (ROOT / source).exists(), each
                    assert source == "." or not IGNORE.leaves_out(PurePosixPath(source)), each


@pytest.mark.parametrize(
    ("path", "is_out"),
    [
        ("rapid/cli.py", False),
        ("recipes/tiny.toml", False),
        ("requirements/cpu.txt", False),
        ("deploy/docker/head.sh", False),
        ("rapid/__pycache__/cli.cpython-311.pyc", True),
        ("deploy/docker/Dockerfile", True),
        ("tests/deploy/kit.py", True),
        ("runs/first/config.json", True),
        (".git/HEAD", True),
        (".env", True),
    ],
)
def test_the_image_gets_what_a_run_needs_and_no_more(path: str, is_out: bool) -> None:
    assert IGNORE.leaves_out(PurePosixPath(path)) is is_out


def test_the_commands_of_compose_and_kubernetes_are_in_the_image() -> None:
    copied = {each.words()[-1] for each in DOCKERFILE.stages[-1].instructions if each.name == "COPY"}
    wanted = set(re.findall(r"rapid-\w+", (ROOT / "docker-compose.yml").read_text()))
    wanted |= set(re.findall(r"rapid-\w+", (ROOT / "deploy/kubernetes/base/cluster.yaml").read_text()))
    assert wanted == {"rapid-head", "rapid-actor", "rapid-healthy"}
    assert {f"/usr/local/bin/{name}" for name in wanted} <= copied


@pytest.fixture
def called(tmp_path: Path) -> Any:
    """Runs a script of the image with stand-ins for `ray` and `rapid`, which note how they are called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ray", "rapid"):
        stand_in = folder / name
        stand_in.write_text(f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\" '' >> {tmp_path}/calls\n")
        stand_in.chmod(0o755)

    def call(script: str, *arguments: str, **environment: str) -> list[list[str]]:
        done = subprocess.run(
            ["sh", DOCKER / script, *arguments],
            env={"PATH": f"{folder}:{os.environ['PATH']}", "RAPID_RUNS": str(tmp_path / "runs"), **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        calls = (tmp_path / "calls").read_text().split("\0\0") if (tmp_path / "calls").exists() else []
        return [call.split("\0") for call in calls if call]

    return call


def test_the_head_starts_ray_and_then_a_run_that_the_recipe_allows(called: Any, tmp_path: Path) -> None:
    ray, rapid = called("head.sh", "recipes/tiny.toml", "--set", "actors.max=3", RAPID_RUN="first")
    assert ray[:3] == ["ray", "start", "--head"]
    assert rapid[:5] == ["rapid", "train", "recipes/tiny.toml", "--run", "first"]
    overrides = [rapid[place + 1] for place, word in enumerate(rapid) if word == "--set"]
    config = load_recipe(ROOT / rapid[2], overrides)
    assert config.run.directory == str(tmp_path / "runs")
    assert (config.actors.scaling, config.actors.max) == ("cluster", 3)
    assert (config.telemetry.host, config.telemetry.port) == ("auto", 9300)
    offered = dict(word.removeprefix("--").split("=", 1) for word in ray if word.startswith("--resources"))
    assert config.learner.resource in json.loads(offered["resources"])
    assert "--resume" not in rapid


def test_a_head_that_is_restarted_goes_on_from_the_checkpoint(called: Any, tmp_path: Path) -> None:
    (tmp_path / "runs/first/checkpoints/step-000020").mkdir(parents=True)
    _, rapid = called("head.sh", "recipes/tiny.toml", RAPID_RUN="first")
    assert rapid[-1] == "--resume"


def test_a_head_that_is_restarted_before_any_checkpoint_begins_anew_and_loses_nothing(
    called: Any, tmp_path: Path
) -> None:
    (tmp_path / "runs/first/checkpoints").mkdir(parents=True)
    _, rapid = called("head.sh", "recipes/tiny.toml", RAPID_RUN="first")
    assert "--resume" not in rapid
    (kept,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"first\.\d+", kept.name)


def test_an_actor_without_a_head_ends_well_after_its_time(called: Any) -> None:
    assert called("actor.sh", RAPID_HEAD="no host", RAPID_WAIT_S="0") == []


@pytest.mark.parametrize(
    ("environment", "cpus"),
    [({}, 1), ({"RAPID_ACTOR_CPUS": "4"}, 4), ({"RAPID_ACTOR_CPUS": "4", "RAPID_NODE_CPUS": "8"}, 8)],
)
def test_an_actors_node_offers_what_its_actors_ask_for(called: Any, environment: dict[str, str], cpus: int) -> None:
    with socket.socket() as head:
        try:
            head.bind(("127.0.0.1", 6379))
        except OSError:
            pytest.skip("the port of Ray's head is taken on this machine")
        head.listen()
        (ray,) = called("actor.sh", RAPID_HEAD="127.0.0.1", **environment)
    assert ray[:3] == ["ray", "start", "--address=127.0.0.1:6379"]
    assert f"--num-cpus={cpus}" in ray
    assert "--block" in ray


def test_the_default_recipe_of_compose_is_shipped() -> None:
    command = read("docker-compose.yml")["services"]["head"]["command"]
    recipe = re.search(r"\$\{RAPID_RECIPE:-(\S+)\}", command)
    assert recipe is not None
    assert (ROOT / recipe[1]).is_file()


def test_health_is_the_nodes_own_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    well, ill = tmp_path / "well", tmp_path / "ill"
    well.write_text("success")
    ill.write_text("Local Raylet failed")
    for node, head, parts, status in (
        (well, ill, [], 0),
        (well, ill, ["head"], 1),
        (well, well, ["head"], 0),
        (tmp_path / "none", well, [], 1),
    ):
        monkeypatch.setattr(healthy, "NODE", node.as_uri())
        monkeypatch.setattr(healthy, "HEAD", head.as_uri())
        assert healthy.main(parts) == status


def test_the_reader_takes_continued_lines_comments_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(
        'ARG BASE=debian:1\nFROM $BASE AS one\nRUN a \\\n  # why\n  && b\nCOPY --from=one /x /y\nCMD ["p", "q"]\n'
    )
    (stage,) = read_dockerfile(file).stages
    run, copied, command = stage.instructions
    assert (stage.base, stage.name) == ("debian:1", "one")
    assert (run.line, run.text) == (3, "a && b")
    assert (copied.flags, copied.words()) == ({"from": "one"}, ["/x", "/y"])
    assert command.words() == ["p", "q"]
    assert substitute("${A}/$B", {"A": "1"}) == "1/$B"


def test_an_instruction_that_the_check_cannot_execute_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text('FROM debian\nSHELL ["bash"]\n')
    with pytest.raises(DockerfileError, match="line 2: 'SHELL', expected one of"):
        read_dockerfile(file)


def test_the_check_copies_by_the_ignore_file_and_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tmp_path / "context"
    (context / "a").mkdir(parents=True)
    (context / "a/in.py").write_text("x")
    (context / "secret").write_text("x")
    (context / ".dockerignore").write_text("*\n!a\n")
    monkeypatch.setattr(check_build, "CONTEXT", context)
    root = Root(tmp_path / "root", {}, folder="/app")
    copy(Instruction(1, "COPY", {}, ". ."), root, {})
    assert [path.name for path in sorted((tmp_path / "root/app").rglob("*"))] == ["a", "in.py"]
    with pytest.raises(StepError, match=r"dockerignore leaves it out"):
        copy(Instruction(2, "COPY", {}, "secret /x"), root, {})


@pytest.mark.parametrize("script", ["head.sh", "actor.sh"])
def test_the_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(DOCKER / script, os.X_OK)
    subprocess.run([shutil.which("sh") or "sh", "-n", DOCKER / script], check=True)
