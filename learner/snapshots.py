"""Snapshots: the weights of a step, without optimizer state, to be evaluated later.

    snapshots/step-000010/   model.safetensors in the model's dtype, config, tokenizer, snapshot.json
                             opened by transformers' from_pretrained; there whole or not at all

The training path pays for a copy of the weights; a thread writes it. Nothing here imports torch at the top.
"""

from __future__ import annotations

import collections
import json
import logging
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from learner.checkpoint import copy_side_files, finish
from protocol.version import PolicyVersion

if TYPE_CHECKING:
    import torch

    from learner.engine import TrainingEngine

FORMAT = 1
WEIGHTS_NAME = "model.safetensors"
_FOLDER = "snapshots"
_INFO_NAME = "snapshot.json"
_NAME = re.compile(r"^step-\d{6,}$")
log = logging.getLogger(__name__)


class SnapshotWriter:
    """Writes the snapshots of one learner. All ranks make the same calls; the one that `writes` does.

    Args:
        run_dir: the run's folder.
        model_dir: where the tokenizer's files are.
        every: `learner.snapshot_every`; None makes every call do nothing.
    """

    def __init__(self, run_dir: Path, model_dir: Path, every: int | None, *, writes: bool) -> None:
        self._folder, self._model_dir = run_dir / _FOLDER, model_dir
        self._every, self._writes = every, writes
        self._newest: PolicyVersion | None = None
        # Kept and used again: fresh memory would cost a page fault for every 4 KiB of every snapshot.
        self._weights: dict[str, torch.Tensor] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="rapid-snapshot")
        self._under_way: Future[None] | None = None
        if every is not None and writes:
            self._folder.mkdir(exist_ok=True)
            for unfinished in self._folder.glob("step-*.tmp"):
                shutil.rmtree(unfinished)

    def offer(self, version: PolicyVersion, engine: TrainingEngine, *, is_last: bool = False) -> None:
        """Keep the weights if it is this step's turn; the last are always kept. One write at a time is under way."""
        if self._every is None or version == self._newest or not (is_last or version.step % self._every == 0):
            return
        self._newest = version
        if not self._writes:
            # Under ZeRO 3 every rank takes part in gathering the weights.
            collections.deque(engine.iter_weights(), maxlen=0)
            return
        self.wait()
        self._copy(engine)
        self._under_way = self._worker.submit(self._write, version, self._weights, engine.model.config)

    def _copy(self, engine: TrainingEngine) -> None:
        import torch

        for name, weight in engine.iter_weights():
            if name not in self._weights:
                self._weights[name] = torch.empty(weight.shape, dtype=weight.dtype)
            self._weights[name].copy_(weight)

    def wait(self) -> None:
        """Until nothing is being written. A snapshot that cannot be written is no reason to end a run."""
        if self._under_way is not None and (error := self._under_way.exception()) is not None:
            log.error("a snapshot could not be written: %s", error)
        self._under_way = None

    def close(self) -> None:
        """Finish writing."""
        self.wait()
        self._worker.shutdown()

    def _write(self, version: PolicyVersion, weights: dict[str, torch.Tensor], config: object) -> None:
        from safetensors.torch import save_file

        folder = self._folder / f"step-{version.step:06d}.tmp"
        folder.mkdir(parents=True)
        save_file(weights, folder / WEIGHTS_NAME, metadata={"format": "pt"})
        config.save_pretrained(folder)  # type: ignore[attr-defined]
        copy_side_files(self._model_dir, folder)
        info = {"format": FORMAT, "incarnation": version.incarnation, "step": version.step}
        (folder / _INFO_NAME).write_text(json.dumps(info))
        finish(folder, keep=None)


def list_snapshots(run_dir: Path) -> list[tuple[PolicyVersion, Path]]:
    """Finished snapshots of the weights that the run's present ones descend from, by step.

    What an earlier incarnation did at or beyond the first snapshot of a later one is left out. One whose description
    cannot be read is passed over, with a warning.
    """
    folder = run_dir / _FOLDER
    found = [path for path in folder.iterdir() if _NAME.match(path.name)] if folder.is_dir() else []
    versions = [(version, path) for path in found if (version := _read_version(path)) is not None]
    kept: list[tuple[PolicyVersion, Path]] = []
    for version, path in sorted(versions, key=lambda item: item[0].step):
        if not kept or version.incarnation >= kept[-1][0].incarnation:
            kept.append((version, path))
    return kept


def _read_version(path: Path) -> PolicyVersion | None:
    try:
        info = json.loads((path / _INFO_NAME).read_text())
        if info["format"] != FORMAT:
            raise ValueError(f"format {info['format']!r}, expected {FORMAT}")
        return PolicyVersion(info["incarnation"], info["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("passed over the snapshot %s: %s", path, error)
        return None
