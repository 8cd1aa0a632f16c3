"""Executes the build steps of a Dockerfile without Docker, so that a missing package is found.

    python -m deploy.docker.check_build --root /var/tmp/rapid-image [--arg DEVICE=cpu] [--run "rapid doctor"]

In place of the base image stands a Debian root made with debootstrap (variant minbase), which the base's slim image is
made from too; its packages are today's, not those of the pinned day. RUN goes through chroot in mount and process
namespaces of its own, COPY keeps to .dockerignore. apt, pip and the resolver are set up as on this machine. What this
does not show: the base image itself, layers, sizes, BuildKit. Wants root and debootstrap.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

from deploy.docker.dockerfile import Dockerfile, Ignore, Instruction, Stage, assignments, read_dockerfile, substitute
from deploy.docker.root import Root, StepError, reach_packages

CONTEXT = Path(__file__).resolve().parents[2]
DOCKERFILE = CONTEXT / "deploy/docker/Dockerfile"
HOST_FOLDERS = ("/etc/apt/apt.conf.d",)
DEBIAN_SOURCES = "/etc/apt/sources.list.d/debian.sources"


def make_base(folder: Path, suite: str) -> None:
    """A minimal Debian with this machine's package sources."""
    say(f"debootstrap {suite}")
    subprocess.run(["debootstrap", "--variant=minbase", suite, str(folder)], check=True, stdout=subprocess.DEVNULL)
    reach_packages(folder)
    for path in HOST_FOLDERS:
        shutil.copytree(path, folder / path.lstrip("/"), dirs_exist_ok=True)
    if Path(DEBIAN_SOURCES).is_file():
        shutil.copy(DEBIAN_SOURCES, folder / DEBIAN_SOURCES.lstrip("/"))
        (folder / "etc/apt/sources.list").unlink(missing_ok=True)


def build(dockerfile: Dockerfile, folder: Path, arguments: dict[str, str], binds: list[str], suite: str) -> Root:
    """All stages, each in a root of its own; the last one's root."""
    base = folder / "base"
    if not base.exists():
        make_base(base.with_suffix(".part"), suite)
        base.with_suffix(".part").rename(base)
    roots: dict[str, Root] = {}
    for stage in dockerfile.stages:
        root = Root(folder / f"stage-{stage.name}", {}, binds=binds)
        if root.path.exists():
            shutil.rmtree(root.path)
        subprocess.run(["cp", "--archive", "--reflink=auto", base, root.path], check=True)
        roots[stage.name] = root
        build_stage(stage, root, roots, arguments)
    return root


def build_stage(stage: Stage, root: Root, roots: dict[str, Root], given: dict[str, str]) -> None:
    """Execute a stage's instructions in order."""
    for instruction in stage.instructions:
        values = {**root.environment, **root.arguments}
        text = substitute(instruction.text, values)
        say(f"{stage.name}, line {instruction.line}: {instruction.name} {text[:100]}")
        start = time.monotonic()
        if instruction.name == "ARG":
            root.arguments.update({name: given.get(name, value) for name, value in assignments(text).items()})
        elif instruction.name == "RUN":
            root.run(instruction.text)
            say(f"    {time.monotonic() - start:.0f} s")
        elif instruction.name == "COPY":
            copy(instruction, root, roots)
        else:
            settle(instruction, root, text)


def built(dockerfile: Dockerfile, folder: Path) -> Root:
    """The last stage's root as an earlier `build` left it."""
    stage = dockerfile.stages[-1]
    root = Root(folder / f"stage-{stage.name}", {})
    for instruction in stage.instructions:
        if instruction.name in ("ENV", "USER", "WORKDIR"):
            settle(instruction, root, instruction.text)
    return root


def settle(instruction: Instruction, root: Root, text: str) -> None:
    """ENV, USER and WORKDIR hold for all that comes after them."""
    if instruction.name == "ENV":
        root.environment.update(assignments(text))
    elif instruction.name == "USER":
        root.user = text
    elif instruction.name == "WORKDIR":
        root.folder = str(PurePosixPath(root.folder) / text)
        root.inside(".").mkdir(parents=True, exist_ok=True)


def copy(instruction: Instruction, root: Root, roots: dict[str, Root]) -> None:
    """COPY, from the context or from an earlier stage."""
    *sources, target = instruction.words()
    for source in sources:
        if stage := instruction.flags.get("from"):
            subprocess.run(["cp", "--archive", roots[stage].inside(source), root.inside(target)], check=True)
            continue
        _copy_from_context(source, root.inside(target), is_folder=target.endswith("/") or len(sources) > 1)
    if mode := instruction.flags.get("chmod"):
        root.inside(target).chmod(int(mode, 8))


def _copy_from_context(source: str, target: Path, *, is_folder: bool) -> None:
    ignore = Ignore((CONTEXT / ".dockerignore").read_text(encoding="utf-8"))
    path = CONTEXT / source
    if path.is_file():
        if ignore.leaves_out(PurePosixPath(source)):
            raise StepError(f"COPY {source}: .dockerignore leaves it out")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / path.name if is_folder else target)
        return
    count = 0
    for each in sorted(path.rglob("*")):
        if each.is_file() and not ignore.leaves_out(PurePosixPath(each.relative_to(CONTEXT))):
            copied = target / each.relative_to(path)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(each, copied)
            count += 1
    if not count:
        raise StepError(f"COPY {source}: nothing there that .dockerignore lets pass")


def say(text: str) -> None:
    """One line of progress."""
    print(f"check_build: {text}", flush=True)


def main() -> int:
    """Exit status 0 if every step and every command of --run went well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dockerfile", type=Path, default=DOCKERFILE)
    parser.add_argument("--root", type=Path, required=True, help="folder for the roots; kept, its base used again")
    parser.add_argument("--suite", default="bookworm", help="Debian suite of the base image")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="a build argument")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="PATH", help="folder of this machine to show inside"
    )
    parser.add_argument("--built", action="store_true", help="build nothing, use what an earlier call has built")
    parser.add_argument("--run", action="append", default=[], help="command to run in the image, as its user")
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("check_build: expected root, and debootstrap (Debian: apt-get install debootstrap)", file=sys.stderr)
        return 2
    options.root.mkdir(parents=True, exist_ok=True)
    try:
        arguments = dict(pair.split("=", 1) for pair in options.arg)
        dockerfile = read_dockerfile(options.dockerfile)
        if options.built:
            root = built(dockerfile, options.root)
        else:
            root = build(dockerfile, options.root, arguments, options.bind, options.suite)
        for command in options.run:
            say(f"run: {command}")
            root.run(command)
    except StepError as error:
        print(f"check_build: {error}", file=sys.stderr)
        return 1
    size = subprocess.run(["du", "-sm", root.path], capture_output=True, text=True, check=True).stdout.split()[0]
    say(f"all steps went well; the last stage's root holds {size} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
