"""The learner's loop.

            hub ──Batch──► prefetch ──► update ──► Commit ──► every H steps: weights ──► hub, actors
                             ▲                        │
                             └── Pull of the next ────┘       every checkpoint_every: checkpoint ──► Settle
                                                              every snapshot_every: snapshot, by a thread

It waits for one thing only, the next batch, and the hub unblocks it. Rank 0 talks to the hub; before every step it
tells the others what comes (a batch, more waiting, or the end), so that all ranks make the same calls.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import threading
import time
from pathlib import Path

from learner.assembly import (
    FirstRank,
    build_engine,
    build_updater,
    connect_first_rank,
    prepare_process,
    start_version,
)
from learner.batch import TrainBatch, build_batch
from learner.checkpoint import CheckpointInfo, model_identity, write_checkpoint
from learner.engine import NonFiniteGradientError, TrainingEngine
from learner.evaluations import EvaluationInbox, LastEvaluation
from learner.link import expect
from learner.memory import trim_memory
from learner.ranks import Ranks, join_ranks, leave_ranks
from learner.record import Timings, step_record
from learner.settings import LearnerSettings
from learner.snapshots import SnapshotWriter
from learner.update import Update, learning_rate
from learner.warmup import warm_up
from protocol.codec import Frame, decode, encode
from protocol.errors import RefusedError
from protocol.messages import Batch
from protocol.version import PolicyVersion
from telemetry.catalogue import LEARNER_CHECKPOINT, LEARNER_SETTLED
from telemetry.timeline import Timeline

log = logging.getLogger(__name__)

# What rank 0 tells the others.
TRAIN, WAIT, END = 1, 2, 3
POLL_S = 0.25
# The others are told to go on waiting this often, so that silence means that rank 0 is gone.
TELL_S = 5.0


def run_learner(settings: LearnerSettings, stop: threading.Event) -> None:
    """Train until `schedule.steps` are done, every prompt has ended, or `stop` is set; then write a checkpoint.

    One call a process. Only rank 0's `stop` counts.

    Raises:
        NonFiniteGradientError: training diverged; `learner-failure.json` in the run's folder says where.
        ProtocolError: the hub is gone.
    """
    prepare_process(settings)
    ranks = join_ranks(settings.rank, settings.world_size, settings.master_address, settings.master_port)
    with contextlib.ExitStack() as stack:
        stack.callback(leave_ranks)
        timeline = Timeline(settings.run_dir, f"learner-{settings.rank}", is_enabled=settings.telemetry.timeline)
        stack.callback(timeline.close)
        timeline.enter("start", "the trainer")
        first = stack.enter_context(connect_first_rank(settings)) if ranks.is_first else None
        engine = build_engine(settings, ranks)
        stack.callback(engine.close)
        stack.callback(timeline.enter, "end")
        Learner(settings, engine, ranks, first, timeline).run(stop)


class Learner:
    """One rank of the loop.

    Args:
        settings: those of this rank.
        engine: the trainer, with the weights of the version at which the run begins.
        ranks: this process among the others.
        first: the ends towards hub and actors; None on all ranks but the first.
        timeline: is told what this rank does; the caller closes it.
    """

    def __init__(
        self,
        settings: LearnerSettings,
        engine: TrainingEngine,
        ranks: Ranks,
        first: FirstRank | None,
        timeline: Timeline,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._ranks = ranks
        self._first = first
        self._timeline = timeline
        self._version = start_version(settings)
        self._published = self._version
        self._checkpointed = self._version if settings.resume_from is not None else None
        self._updater = build_updater(settings, engine, ranks)
        self._snapshots = SnapshotWriter(
            settings.run_dir,
            Path(settings.model_path),
            settings.learner.snapshot_every,
            writes=ranks.is_first,
        )
        self._evaluations = EvaluationInbox()
        self._last_step_s = time.monotonic()

    @property
    def version(self) -> PolicyVersion:
        """The weights that it holds."""
        return self._version

    def run(self, stop: threading.Event) -> None:
        """The loop; see `run_learner`."""
        self._publish()
        self._prefetch(self._version)
        self._timeline.enter("start", "a rehearsal of the first step")
        warm_up(self._settings, self._engine, self._updater, self._ranks)
        if self._settings.resume_from is None:
            self._snapshots.offer(self._version, self._engine)
        self._last_step_s = time.monotonic()
        while self._version.step < self._settings.schedule.steps:
            timings, start = Timings(), time.monotonic()
            self._timeline.enter("wait", f"a batch for step {self._version.step + 1}")
            self._tell_lender(works=False)
            batch = self._next_batch(stop)
            self._tell_lender(works=True)
            if batch is None:
                break
            timings.wait_s = time.monotonic() - start
            self._train(batch, timings)
            self._snapshots.offer(self._version, self._engine)
            if self._version.step % self._settings.learner.checkpoint_every == 0:
                self._checkpoint()
        if self._checkpointed != self._version and self._version.step > 0:
            self._checkpoint()
        self._snapshots.offer(self._version, self._engine, is_last=True)
        self._snapshots.close()
        if self._settings.eval_wait_s is not None:
            self._await_evaluation(self._settings.eval_wait_s, stop)
        if self._first is not None:
            self._first.publisher.wait()

    def _tell_lender(self, *, works: bool) -> None:
        if self._first is not None:
            self._first.lender.note(works=works)

    # --- batches ------------------------------------------------------------------------------------

    def _prefetch(self, version: PolicyVersion) -> None:
        if self._first is not None and version.step < self._settings.schedule.steps:
            self._first.link.prefetch(version)

    def _next_batch(self, stop: threading.Event) -> Batch | None:
        """The next batch, on every rank, or None at the end."""
        while True:
            kind, batch = self._wait_for_batch(stop) if self._first is not None else (WAIT, None)
            frames: list[Frame] = encode(batch) if batch is not None and self._ranks.world_size > 1 else []
            kind, frames = self._ranks.share(kind, frames)
            if kind == END:
                return None
            if kind == TRAIN:
                return batch if batch is not None else expect(decode(frames), Batch)

    def _wait_for_batch(self, stop: threading.Event) -> tuple[int, Batch | None]:
        assert self._first is not None
        link, deadline = self._first.link, time.monotonic() + TELL_S
        link.waiting_for = f"a batch for {self._version}"
        while time.monotonic() < deadline:
            if stop.is_set():
                log.info("told to stop at %s", self._version)
                return END, None
            try:
                batch = link.poll_batch(POLL_S)
            except RefusedError as error:
                if error.code != "exhausted":
                    raise
                log.info("no more batches: %s", error.reason)
                return END, None
            if batch is not None:
                link.waiting_for = ""
                return TRAIN, batch
        return WAIT, None

    # --- one step -----------------------------------------------------------------------------------

    def _train(self, batch: Batch, timings: Timings) -> None:
        successor = PolicyVersion(self._version.incarnation, self._version.step + 1)
        self._prefetch(successor)
        start = time.monotonic()
        self._timeline.enter("train", f"step {successor.step}")
        config = self._settings.learner
        lr = learning_rate(self._version.step, self._settings.schedule.steps, config)
        data = build_batch(batch.groups, self._settings.lineage, self._version)
        update = self._update_or_note(batch, data, lr)
        timings.train_s = time.monotonic() - start
        self._version = successor
        if self._first is not None:
            self._first.link.commit(batch.batch_id, successor)
        # Counted from the last broadcast and not from 0: a resumed run begins with one, wherever it is.
        if successor.step - self._published.step >= self._settings.schedule.broadcast_every:
            timings.publish_s = self._publish()
        self._record(batch, data, update, lr, timings)
        trim_memory()

    def _update_or_note(self, batch: Batch, data: TrainBatch, lr: float) -> Update:
        try:
            every = self._settings.learner.gradient_cosine_every
            with_cosine = every is not None and (self._version.step + 1) % every == 0
            return self._updater.update(data, lr, with_cosine=with_cosine)
        except NonFiniteGradientError as error:
            note = {
                "error": str(error),
                "step": self._version.step + 1,
                "version": str(self._version),
                "batch_id": batch.batch_id,
                "entries": [group.entry_id for group in batch.groups],
                "lr": lr,
            }
            if self._first is not None:
                path = self._first.run.path / "learner-failure.json"
                path.write_text(json.dumps(note, indent=2))
            raise NonFiniteGradientError(
                f"step {note['step']}, batch {batch.batch_id}: {error}. Nothing of this step was committed; resume "
                "from the last checkpoint with a lower learner.lr or a lower algorithm.weight_clip"
            ) from error

    # --- weights, checkpoints, metrics --------------------------------------------------------------

    def _publish(self) -> float:
        """Copy the weights and let them be served. Returns the seconds that it kept the loop."""
        start = time.monotonic()
        self._timeline.enter("publish", f"weights {self._version}")
        if self._first is not None:
            self._first.publisher.publish(self._version, self._engine)
        else:
            # Under ZeRO 3 every rank takes part in gathering the weights.
            collections.deque(self._engine.iter_weights(), maxlen=0)
        self._updater.anchors.hold()
        self._published = self._version
        return time.monotonic() - start

    def _checkpoint(self) -> None:
        start, first = time.monotonic(), self._first
        self._timeline.enter("checkpoint", str(self._version))
        if first is not None:
            first.link.waiting_for = f"checkpoint {self._version}"
        self._write_checkpoint(first.link.snapshot() if first is not None else {})
        if first is not None:
            first.link.settle(self._version)
            first.link.waiting_for = ""
            first.exporter.set(LEARNER_SETTLED, self._version.step)
            first.exporter.observe(LEARNER_CHECKPOINT, time.monotonic() - start)
        self._checkpointed = self._version

    def _write_checkpoint(self, ledger: dict[str, object]) -> None:
        config = self._settings.learner
        info = CheckpointInfo(
            version=self._version,
            lineage=self._settings.lineage,
            model_path=self._settings.model.path,
            dtype=self._settings.model.dtype,
            identity=model_identity(Path(self._settings.model_path)),
            ranks=self._ranks.world_size,
            zero_stage=config.zero_stage,
        )
        write_checkpoint(
            self._settings.run_dir,
            info,
            ledger,
            engine=self._engine,
            ranks=self._ranks,
            model_dir=Path(self._settings.model_path),
            keep=config.keep_checkpoints,
        )

    def _await_evaluation(self, limit_s: float, stop: threading.Event) -> None:
        """Serve the last weights until they are evaluated, on every rank; not if the run was told to stop."""
        if self._published != self._version:
            self._publish()
        self._timeline.enter("wait", f"the evaluation of {self._version}")
        self._tell_lender(works=False)
        if self._first is not None:
            self._first.publisher.wait()
            self._first.link.waiting_for = f"the evaluation of {self._version}"
            self._first.link.evaluate_last(self._version)
        last, kind = LastEvaluation(limit_s), WAIT
        while kind == WAIT:
            if self._first is not None:
                kind = WAIT if not stop.wait(POLL_S) and last.is_awaited(self._first.link.inspect()) else END
            kind, _ = self._ranks.share(kind)

    def _record(self, batch: Batch, data: TrainBatch, update: Update, lr: float, timings: Timings) -> None:
        now = time.monotonic()
        interval_s, self._last_step_s = now - self._last_step_s, now
        if self._first is None:
            return
        link = self._first.link
        self._evaluations.look(link.inspect())
        record = step_record(
            batch,
            data,
            update,
            self._version,
            timings,
            lr=lr,
            interval_s=interval_s,
            wall_s=link.since_first_actor_s(),
            actors=link.num_actors(),
            evaluation=self._evaluations.take(),
        )
        link.hand_over([self._first.run.append_metrics(record)])
        self._first.exporter.record(record)
        self._first.sampler.offer(batch.groups, self._version)
