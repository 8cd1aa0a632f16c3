"""The rounds of `alternate`: generate H·B groups, then train H times, then broadcast.

The other schedules have no rounds: there, generation and training are always allowed, and the admission rule
alone decides.

                 H·B groups buffered                        weights of the next round published
    generating ───────────────────────► training, H pulls ─────────────────────────────────────► generating
         ▲                                  │
         └──────────────────────────────────┘  fewer than a batch left (stale after a restart): generate the rest

What is under way when a round is complete sleeps with the engine and goes on in the next. With the bound H - 1 there is
nothing of the kind, as nothing of this round could be trained on in the next; and nothing in the last round, as
there is no next.
"""

from __future__ import annotations

from protocol.config import ScheduleConfig, ScheduleMode


class Rounds:
    """Whose turn it is. `left` is the number of batches that this round has still to serve."""

    def __init__(self, schedule: ScheduleConfig, batch_groups: int) -> None:
        self._schedule = schedule
        self._batch_groups = batch_groups
        self._alternates = schedule.mode is ScheduleMode.ALTERNATE
        self.generating = True
        self.left = 0
        self._told = True
        self.begin(0)

    @property
    def has_turns(self) -> bool:
        """Whether actors and learner take turns at all."""
        return self._alternates

    @property
    def may_pull(self) -> bool:
        """Whether the learner may have a batch."""
        return not self._alternates or (self.left > 0 and not self.generating)

    @property
    def may_lease(self) -> bool:
        """Whether actors may begin groups."""
        return self.generating

    def begin(self, step: int) -> None:
        """The weights of optimizer step `step` are published: a round begins."""
        self.left = max(0, min(self._schedule.broadcast_every, self._schedule.steps - step))
        self.generating = True

    def served(self, num_batches: int = 1) -> None:
        """So many batches went to the learner; a negative number came back from one that is gone."""
        self.left = max(0, self.left - num_batches)

    def update(self, buffered: int, possible: int) -> None:
        """Change turns if it is time.

        Args:
            buffered: groups that the next batch may take.
            possible: groups that are buffered or may yet come.
        """
        if not self._alternates or self.left == 0:
            return
        if self.generating:
            batches = min(self.left, possible // self._batch_groups)
            self.generating = batches == 0 or buffered < batches * self._batch_groups
        elif buffered < self._batch_groups <= possible:
            self.generating = True

    def take_change(self) -> bool:
        """Whether the turn is another than when this was last asked."""
        changed = self.generating is not self._told
        self._told = self.generating
        return changed
