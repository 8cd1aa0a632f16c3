"""How many actors there are and should be: the launcher's account, and the last wish of anybody who asked."""

from __future__ import annotations

from protocol.errors import RefusedError
from protocol.status import FleetStatus, ScaleOrder

_SILENT_S = 15.0


class Steering:
    """Kept by the hub, since it is the one address that everybody knows; the launcher alone acts on it."""

    def __init__(self) -> None:
        self.fleet: FleetStatus | None = None
        self.order: ScaleOrder | None = None
        self._heard_s = 0.0

    def account(self, fleet: FleetStatus, now: float) -> None:
        """The launcher says what there is."""
        self.fleet, self._heard_s = fleet, now

    def ask(self, actors: int | None, now: float, *, force: bool = False) -> None:
        """Somebody wants this many; None goes back to the configured scaling. Refuses "bounds" and "no_launcher"."""
        if self.fleet is None or now - self._heard_s > _SILENT_S:
            raise RefusedError("no_launcher", "no launcher has spoken lately that could start or stop actors")
        if self.fleet.is_ending:
            raise RefusedError("ending", "the run ends after the step under way")
        if actors is not None:
            _check_bounds(actors, self.fleet)
            if not force:
                _check_fitting(actors, self.fleet)
        self.order = ScaleOrder(number=self.order.number + 1 if self.order else 1, actors=actors)


def _check_bounds(actors: int, fleet: FleetStatus) -> None:
    if fleet.least == fleet.most != actors:
        raise RefusedError(
            "bounds",
            f"{actors} actors: this run has {fleet.least} throughout, for actors.min and actors.max are equal, or "
            "weights.transport is not zmq",
        )
    if actors < fleet.least:
        raise RefusedError("bounds", f"{actors} actors: expected at least actors.min = {fleet.least}")
    if fleet.most is not None and actors > fleet.most:
        raise RefusedError("bounds", f"{actors} actors: expected at most actors.max = {fleet.most}")


def _check_fitting(actors: int, fleet: FleetStatus) -> None:
    """Without `actors.max` nobody has said how many there may be: a slip of the finger could ask for thousands."""
    if fleet.most is None and fleet.fitting is not None and actors > fleet.fitting:
        raise RefusedError(
            "bounds",
            f"{actors} actors: expected at most {fleet.fitting}, which is what the machines there are can hold by "
            "actors.cpus and actors.gpus; ask with --force if more are to come, or begin the run with actors.max",
        )
