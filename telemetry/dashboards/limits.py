"""Where a figure begins to be a cause for concern: the same numbers in panels and alert rules."""

STALE_SHARE = 0.05
"""Of the groups that come in, those beyond the bound: each was generated in vain."""
WAIT_SHARE = 0.5
"""Of the learner's time, spent waiting for a batch."""
BUSY_SHARE = 0.5
"""Of an actor's time in which its engine works."""
DRIFT_NATS = 0.2
"""Mean |generator - trainer| logprob at equal version; bfloat16 alone makes about 0.05."""
REWARD_SHARE = 0.5
"""Of the best reward so far."""
DISK_FREE_SHARE = 0.1
"""Of the disk of the run's folder."""
