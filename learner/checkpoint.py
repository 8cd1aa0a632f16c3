"""Checkpoints: what a run needs to go on, in one folder, which is there whole or not at all.

    checkpoints/step-000040/
        model/                       config, tokenizer and safetensors, opened by transformers' from_pretrained
        optimizer-rank0.safetensors  float32 weights and moments of each rank, and its random number states
        learner.json                 version, lineage, model identity, ranks
        ledger.json                  the hub's ledger at this moment
    checkpoints/lineage.json         every incarnation begun so far, with or without a checkpoint of its own

Nothing here imports torch at the top, so that a resume is checked before anything is started.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol.version import Lineage, PolicyVersion

if TYPE_CHECKING:
    import torch

    from learner.engine import TrainingEngine
    from learner.ranks import Ranks

FORMAT = 1
log = logging.getLogger(__name__)

_NAME = re.compile(r"^step-\d{6,}$")
# What makes two models the same, under transformers' names in config.json.
_IDENTITY = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "tie_word_embeddings",
)


class ResumeError(ValueError):
    """A run cannot go on from its checkpoint: none there, damaged, or of another model or layout."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What `learner.json` says."""

    version: PolicyVersion
    """The weights held: the step after which the checkpoint was written."""
    lineage: Lineage
    """That of the learner that wrote it."""
    model_path: str
    """`model.path` of the run."""
    dtype: str
    """`model.dtype` of the run."""
    identity: dict[str, Any]
    """Architecture and sizes of the model, from its config.json."""
    ranks: int
    """Processes that wrote optimizer states."""
    zero_stage: int
    """`learner.zero_stage` of the run."""


@dataclass(frozen=True)
class ResumePoint:
    """Where and how a run goes on."""

    path: Path
    """The checkpoint's folder: `LearnerSettings.resume_from`."""
    lineage: Lineage
    """With the new incarnation: `LearnerSettings.lineage`."""
    version: PolicyVersion
    """The first version of the new incarnation, the same weights as the checkpoint's."""
    ledger: dict[str, object]
    """The hub's state."""
    info: CheckpointInfo


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Folders of finished checkpoints, oldest first: a later incarnation is newer, whatever its step.

    One whose description cannot be read is left out, with a warning.
    """
    folder = run_dir / "checkpoints"
    found = [path for path in folder.iterdir() if _NAME.match(path.name)] if folder.is_dir() else []
    versions: dict[Path, PolicyVersion] = {}
    for path in found:
        try:
            versions[path] = read_info(path).version
        except ResumeError as error:
            log.warning("passed over a checkpoint: %s", error)
    return sorted(versions, key=lambda path: versions[path])


def check_resume(
    run_dir: Path,
    *,
    model_path: str,
    dtype: str,
    identity: Mapping[str, Any],
    ranks: int,
    zero_stage: int,
    checkpoint: Path | None = None,
) -> ResumePoint:
    """Where the run goes on; before anything is started.

    Args:
        run_dir: the run's folder.
        model_path, dtype: `model.path` and `model.dtype` of the configuration.
        identity: `model_identity` of the model's folder.
        ranks, zero_stage: `learner.ranks` and `learner.zero_stage`.
        checkpoint: which one; None takes the newest.

    Raises:
        ResumeError: there is none, it is damaged, or a value differs from the checkpoint's.
    """
    path = checkpoint or newest_checkpoint(run_dir)
    info = read_info(path)
    configured = {"model.path": model_path, "model.dtype": dtype, **dict(identity)}
    saved = {"model.path": info.model_path, "model.dtype": info.dtype, **info.identity}
    configured |= {"learner.ranks": ranks, "learner.zero_stage": zero_stage}
    saved |= {"learner.ranks": info.ranks, "learner.zero_stage": info.zero_stage}
    for name in sorted(saved.keys() | configured.keys()):
        if saved.get(name) != configured.get(name):
            raise ResumeError(
                f"{name} is {configured.get(name)!r}, expected {saved.get(name)!r} as in {path}: "
                "resume with the configuration of that run, or start a new run under another name"
            )
    lineage = _newest_lineage(run_dir, info).resume_at(info.version.step)
    version = PolicyVersion(lineage.incarnation, info.version.step)
    return ResumePoint(path, lineage, version, _read_json(path / "ledger.json"), info)


def claim_lineage(run_dir: Path, lineage: Lineage) -> None:
    """Note that an incarnation begins, so that its versions are never given to other weights.

    Also removes what an incarnation that died in a checkpoint left of it.
    """
    folder = run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob("step-*.tmp"):
        shutil.rmtree(unfinished)
    temporary = folder / "lineage.json.tmp"
    temporary.write_text(json.dumps({"branch_steps": list(lineage.branch_steps)}))
    _sync(temporary)
    temporary.rename(folder / "lineage.json")
    _sync(folder)


def _newest_lineage(run_dir: Path, info: CheckpointInfo) -> Lineage:
    path = run_dir / "checkpoints" / "lineage.json"
    if not path.exists():
        return info.lineage
    claimed = Lineage(tuple(_read_json(path).get("branch_steps", ())))
    return max(claimed, info.lineage, key=lambda lineage: lineage.incarnation)


def newest_checkpoint(run_dir: Path) -> Path:
    """Raises ResumeError where there is none."""
    checkpoints = list_checkpoints(run_dir)
    if not checkpoints:
        raise ResumeError(
            f"{run_dir / 'checkpoints'} holds no checkpoint that can be read, so that there is nothing to resume: "
            "begin anew under another --run NAME, or remove that run's folder"
        )
    return checkpoints[-1]


def model_identity(model_dir: Path) -> dict[str, Any]:
    """Architecture and sizes of a model in transformers' format, by the names of its config.json."""
    config = _read_json(model_dir / "config.json")
    return {name: config[name] for name in _IDENTITY if name in config}


def read_info(path: Path) -> CheckpointInfo:
    """Read `learner.json`. Raises ResumeError where it is missing or damaged."""
    values = _read_json(path / "learner.json")
    if values.pop("format", None) != FORMAT:
        raise ResumeError(f"{path / 'learner.json'} is not of format {FORMAT}: resume with the Rapid that wrote it")
    try:
        version = PolicyVersion.parse(values.pop("version"))
        lineage = Lineage(tuple(values.pop("branch_steps")))
        return CheckpointInfo(version=version, lineage=lineage, **values)
    except (KeyError, TypeError, ValueError) as error:
        raise ResumeError(
            f"{path / 'learner.json'} is damaged: {error}. Remove that folder to go on from one before"
        ) from error


def write_info(folder: Path, info: CheckpointInfo, ledger: Mapping[str, object]) -> None:
    """Write `learner.json` and `ledger.json` into a folder."""
    values = asdict(info) | {"format": FORMAT, "version": str(info.version)}
    values["branch_steps"] = list(values.pop("lineage")["branch_steps"])
    (folder / "learner.json").write_text(json.dumps(values, indent=2))
    (folder / "ledger.json").write_text(json.dumps(ledger))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ResumeError(f"cannot read {path}: {error}. Remove that folder to go on from one before") from error
    if not isinstance(values, dict):
        raise ResumeError(
            f"{path} holds {type(values).__name__}, expected a map. Remove that folder to go on from one before"
        )
    return values


def write_checkpoint(
    run_dir: Path,
    info: CheckpointInfo,
    ledger: Mapping[str, object],
    *,
    engine: TrainingEngine,
    ranks: Ranks,
    model_dir: Path,
    keep: int | None,
) -> Path:
    """Write a checkpoint; all ranks together, which must share the run's folder. It is on the disk at the return.

    Args:
        run_dir: the run's folder.
        info, ledger: what `learner.json` and `ledger.json` will say; used on rank 0.
        engine, ranks: the trainer of this rank, and this process among the others.
        model_dir: where the tokenizer's files are.
        keep: newest checkpoints kept; None keeps all.
    """
    folder = begin(run_dir, info.version.step)
    save_rank(folder, ranks.rank, engine.optimizer_state())
    save_model(folder / "model", engine, model_dir, writes=ranks.is_first)
    ranks.barrier()
    if ranks.is_first:
        write_info(folder, info, ledger)
        finish(folder, keep)
    ranks.barrier()
    return folder.with_name(folder.name.removesuffix(".tmp"))


def save_model(folder: Path, engine: TrainingEngine, model_dir: Path, *, writes: bool) -> None:
    """Write weights, config and tokenizer. All ranks call it; the one that `writes` does."""
    weights: dict[str, torch.Tensor] = {}
    for name, weight in engine.iter_weights():
        if writes:
            # DeepSpeed lays weights side by side in one buffer; a copy of each is what the file format wants.
            weights[name] = weight.cpu().clone()
    if not writes:
        return
    engine.model.save_pretrained(folder, state_dict=weights)
    copy_side_files(model_dir, folder)


def copy_side_files(model_dir: Path, folder: Path) -> None:
    """Copy what is no weights, such as the tokenizer, unless it is there already."""
    for path in model_dir.iterdir():
        is_weights = path.suffix in {".safetensors", ".bin", ".gguf", ".pt"} or path.name.endswith(".index.json")
        if path.is_file() and not is_weights and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def begin(run_dir: Path, step: int) -> Path:
    """The folder in which the checkpoint of `step` is written until `finish` renames it. Every rank may call this."""
    folder = run_dir / "checkpoints" / f"step-{step:06d}.tmp"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def finish(folder: Path, keep: int | None) -> Path:
    """Make a written checkpoint visible, once it is on the disk, and remove the oldest beyond `keep`."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
    target = folder.with_name(folder.name.removesuffix(".tmp"))
    if target.exists():
        # The same step once more, after a resume: the newer one counts.
        shutil.rmtree(target)
    folder.rename(target)
    _sync(target.parent)
    if keep is not None:
        for old in list_checkpoints(target.parent.parent)[:-keep]:
            shutil.rmtree(old)
    return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_rank(folder: Path, rank: int, state: Mapping[str, torch.Tensor]) -> None:
    """Write one rank's optimizer and random number states."""
    import torch
    from safetensors.torch import save_file

    tensors = {f"optimizer.{name}": value.contiguous() for name, value in state.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    save_file(tensors, folder / f"optimizer-rank{rank}.safetensors")


def load_rank(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    """Read one rank's optimizer state, and put its random number states back.

    Raises ResumeError where the file is missing or damaged.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / f"optimizer-rank{rank}.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ResumeError(f"cannot read {path}: {error}. Remove that folder to go on from one before") from error
    torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return {name.removeprefix("optimizer."): value for name, value in tensors.items() if name.startswith("optimizer.")}
