"""The capacity rule of AReaL (arXiv 2505.24298): how many groups may be under way at once.

With N groups leased, buffered or pulled, the next one granted is trained after N // B more batches, so its lag
will be that of the weights that begin it plus N // B. It stays within η as long as N < (η + 1 - lag) · B. Back-pressure
thus reaches the actors as the absence of leases, never as lost work.
"""

from __future__ import annotations


def capacity(lag: int, *, max_staleness: int, batch_groups: int, batches_left: int) -> int:
    """The number of groups under way at which granting stops.

    Args:
        lag: of the weights that would begin the group, to the weights that the learner has now.
        max_staleness: η.
        batch_groups: B.
        batches_left: until the end of the run, those that are pulled and not committed included; what none of them
            can train on is not begun.
    """
    return max(0, min(max_staleness + 1 - lag, batches_left)) * batch_groups


def grantable(room: int, leased: int, held: int, num_actors: int) -> int:
    """How many groups one actor may begin now.

    Args:
        room: groups that may be leased at once, to all actors together.
        leased: groups leased now, to all actors together.
        held: groups leased now to the actor that asks.
        num_actors: actors at work; each may hold an equal share, rounded up, so that the first one to ask
            does not leave the others idle.
    """
    share = -(-room // max(1, num_actors))
    return max(0, min(room - leased, share - held))
