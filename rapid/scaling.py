"""How many actors there should be: what was ordered, what the cluster has room for, or what the advisor says."""

from __future__ import annotations

from actors.config import ActorsConfig
from protocol.status import ScaleOrder

LOOKS = 3
"""So many advices in a row must agree before they are followed."""
LOOK_EVERY_S = 10.0


class Scaler:
    """Decides; starts and stops nothing. Times are of one clock that never goes back.

    `wanted` stays within `actors.min` and `actors.max`, whoever asks.
    """

    def __init__(self, config: ActorsConfig, now: float) -> None:
        self._config = config
        self.wanted = config.count
        self.scaling: str = config.scaling
        """What is followed now: an order makes it "fixed"."""
        self._order = 0
        self._agreed: list[int] = []
        self._looked_s = now
        self._changed_s = now

    def follow(self, order: ScaleOrder | None, now: float) -> str | None:
        """Take the hub's newest order; what to tell the user of it, None if it is known already."""
        if order is None or order.number <= self._order:
            return None
        self._order, self._agreed, self._changed_s = order.number, [], now
        if order.actors is None:
            self.scaling = self._config.scaling
            if self.scaling == "fixed":
                self.wanted = self._config.count
            return f"scaling is {self.scaling!r} again, {_actors(self.wanted)} now"
        self.scaling, before = "fixed", self.wanted
        self.wanted = self._within(order.actors)
        return f"asked for {_actors(self.wanted)}" + (f" instead of {before}" if before != self.wanted else " again")

    def consider(self, now: float, advised: int | None, room: int) -> str | None:
        """Scale by advice or by the cluster's room; what to tell the user, None if nothing changes.

        Args:
            advised: what the advisor says; None says nothing.
            room: actors that the cluster could place besides those there are; negative where some wait for a place.
        """
        if self.scaling == "fixed" or now - self._looked_s < LOOK_EVERY_S:
            return None
        self._looked_s = now
        if now - self._changed_s < self._config.settle_s and self.scaling == "advice":
            return None
        proposed = advised if self.scaling == "advice" else self.wanted + room
        self._agreed = [*self._agreed, self._within(proposed)][-LOOKS:] if proposed is not None else []
        if len(self._agreed) < LOOKS or len(set(self._agreed)) > 1 or self._agreed[0] == self.wanted:
            return None
        before, self.wanted = self.wanted, self._agreed[0]
        self._agreed, self._changed_s = [], now
        reason = "by the rates measured" if self.scaling == "advice" else "by the cluster's room"
        return f"{_actors(self.wanted)} instead of {before}, {reason}"

    def _within(self, actors: int) -> int:
        most = self._config.max
        return max(self._config.min, actors if most is None else min(actors, most))


def _actors(number: int) -> str:
    return f"{number} actor" + ("s" if number != 1 else "")
