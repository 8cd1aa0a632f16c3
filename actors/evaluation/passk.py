"""pass@k, the chance that at least one of k completions is right, estimated without bias."""

from __future__ import annotations

from math import comb


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """1 − C(n−c, k) / C(n, k), for c right ones among n samples (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= num_samples or not 0 <= num_right <= num_samples:
        raise ValueError(f"pass@{k} of {num_right} right among {num_samples}: expected 1 <= k <= n and 0 <= right <= n")
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)
