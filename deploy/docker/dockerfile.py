"""Reads a Dockerfile: enough of the language for our own, and an error for the rest."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

KNOWN = ("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "LABEL", "RUN", "USER", "WORKDIR")


class DockerfileError(Exception):
    """Got, expected and where."""


@dataclass(frozen=True)
class Instruction:
    """One instruction. `flags` are its --name=value, `text` what follows them."""

    line: int
    name: str
    flags: dict[str, str]
    text: str

    def words(self) -> list[str]:
        """The arguments, of the JSON form or of the shell form."""
        return json.loads(self.text) if self.text.startswith("[") else self.text.split()


@dataclass
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class Dockerfile:
    """Its stages in order, and the ARGs before the first."""

    arguments: dict[str, str]
    stages: list[Stage]


def read_dockerfile(path: Path) -> Dockerfile:
    """Raises DockerfileError."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for instruction in _instructions(path.read_text(encoding="utf-8")):
        if instruction.name == "FROM":
            base, *rest = instruction.words()
            name = rest[1] if len(rest) == 2 and rest[0].upper() == "AS" else str(len(stages))
            stages.append(Stage(substitute(base, arguments), name))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name == "ARG":
            arguments.update(assignments(instruction.text))
        else:
            raise DockerfileError(f"{path}, line {instruction.line}: {instruction.name}, expected FROM before it")
    return Dockerfile(arguments, stages)


def _instructions(text: str) -> list[Instruction]:
    found: list[Instruction] = []
    buffered, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        first = first if buffered else number
        buffered += line.strip().removesuffix("\\")
        if not line.rstrip().endswith("\\"):
            found.append(_instruction(first, buffered))
            buffered = ""
    return found


def _instruction(line: int, text: str) -> Instruction:
    name, _, rest = text.partition(" ")
    if name.upper() not in KNOWN:
        raise DockerfileError(f"line {line}: {name!r}, expected one of {', '.join(KNOWN)}")
    flags = {}
    while match := re.match(r"\s*--([a-z-]+)=(\S+)\s+", rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(line, name.upper(), flags, rest.strip())


def assignments(text: str) -> dict[str, str]:
    """NAME=value pairs of an ARG or ENV; an ARG without a value is empty."""
    pairs = re.findall(r"(\w+)(?:=(\"[^\"]*\"|\S*))?(?:\s+|$)", text)
    return {name: value.strip('"') for name, value in pairs}


def substitute(text: str, values: dict[str, str]) -> str:
    """With $NAME and ${NAME} replaced where NAME is known."""
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda m: values.get(m[1] or m[2], m[0]), text)


class Ignore:
    """.dockerignore: the last pattern that matches a path, or a folder above it, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [
            (_pattern(line.removeprefix("!")), not line.startswith("!"))
            for line in lines
            if line and not line.startswith("#")
        ]

    def leaves_out(self, path: PurePosixPath) -> bool:
        """Whether this path, relative to the build context, stays out of it."""
        prefixes = [str(path), *(str(parent) for parent in path.parents if parent.name)]
        decision = False
        for pattern, is_out in self._rules:
            if any(pattern.fullmatch(prefix) for prefix in prefixes):
                decision = is_out
        return decision


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\?)", text.strip("/"))
    meaning = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts))
