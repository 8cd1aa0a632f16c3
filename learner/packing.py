"""Packing: groups become rows in which completions share their prompt, and rows become micro-batches.

A row is one copy of the prompt and some completions of its group:

    input      x x x x  a a a  b b  c c c .        x prompt, a b c completions, . padding
    position   0 1 2 3  4 5 6  4 5  4 5 6 .        every completion restarts after the prompt
    segment    0 0 0 0  1 1 1  2 2  3 3 3 -        a token sees segment 0 and its own, up to itself

The prompt is computed once instead of G times, but attention is dense over the row, so long completions are
cheaper apart: each group takes the number of completions a row that costs least (`choose_row_size`). With one
completion in every row the mask is plain causal, and is left out: padding lies to the right, where no token looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from learner.batch import TrainBatch

PADDING_SEGMENT = -1


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Rows of one forward pass: R rows of L positions, K completion tokens whose log-probabilities are wanted."""

    input_ids: torch.Tensor
    """int64 (R, L)."""
    position_ids: torch.Tensor
    """int64 (R, L)."""
    attention_mask: torch.Tensor | None
    """bool (R, 1, L, L), True where a query (third) may see a key (fourth). None: causal."""
    predict_index: torch.Tensor
    """int64 (K,), position in the R·L flattened ones whose logits predict the token. Completions of one row
    share that of their first token."""
    target_ids: torch.Tensor
    """int64 (K,)."""
    token_index: torch.Tensor
    """int64 (K,), ascending: where the tokens are in the (T,) tensors of the batch. With `groups` ascending, they
    are in the order of `batch.select_groups(groups)`."""
    groups: tuple[int, ...]
    """Groups of the batch that lie here, whole, ascending."""

    def to(self, device: torch.device | str) -> MicroBatch:
        """The same with its tensors on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Row:
    """Completions of one group that share a row. Lengths in tokens."""

    group: int
    completions: tuple[int, ...]
    length: int


def pack_micro_batches(
    batch: TrainBatch,
    groups: Sequence[int],
    *,
    max_tokens: int,
    attention_cost: float,
    share_prompts: bool = True,
    min_count: int = 1,
) -> list[MicroBatch]:
    """Lay out `groups` of the batch: micro-batches of whole groups, each of at most `max_tokens` padded positions.

    A group that is larger alone makes a micro-batch of its own. `attention_cost` is that of one query-key pair, in
    units of one token's linear layers (`learner.policy.attention_cost`). `min_count` splits further, so that ranks
    can do equally many forward passes (`count_micro_batches`). Widest rows come first, so that a run that does not
    fit in memory fails at once.
    Raises ValueError for no groups and for `min_count` above their number.
    """
    planned = _plan_groups(batch, groups, attention_cost, share_prompts)
    bins = _fill_bins(planned, max_tokens, min_count)
    return [_build(batch, [row for rows in members for row in rows]) for members in bins]


def count_micro_batches(
    batch: TrainBatch,
    groups: Sequence[int],
    *,
    max_tokens: int,
    attention_cost: float,
    share_prompts: bool = True,
) -> int:
    """How many micro-batches `pack_micro_batches` would make; cheap, for the largest number over ranks."""
    return len(_fill_bins(_plan_groups(batch, groups, attention_cost, share_prompts), max_tokens, 1))


def choose_row_size(prompt_length: int, lengths: Sequence[int], attention_cost: float) -> int:
    """Completions a row, of one group, for which tokens + attention_cost · Σ_rows length² is smallest."""

    def cost(size: int) -> float:
        rows = [prompt_length + sum(lengths[i : i + size]) for i in range(0, len(lengths), size)]
        return sum(rows) + attention_cost * sum(row * row for row in rows)

    return min(range(1, len(lengths) + 1), key=lambda size: (cost(size), size))


def _plan_groups(
    batch: TrainBatch, groups: Sequence[int], attention_cost: float, share_prompts: bool
) -> list[list[Row]]:
    """Rows of every group, widest group first."""
    if not groups:
        raise ValueError("pack_micro_batches got no groups, expected at least one")
    lengths, prompts = batch.lengths_C.tolist(), batch.prompt_lengths_N.tolist()
    members: dict[int, list[int]] = {group: [] for group in groups}
    for completion, group in enumerate(batch.group_of_C.tolist()):
        if group in members:
            members[group].append(completion)
    planned = []
    for group, completions in members.items():
        # Equally long completions share a row, so that the rows of a group are of similar length.
        ordered = sorted(completions, key=lambda completion: (lengths[completion], completion))
        size = 1
        if share_prompts:
            size = choose_row_size(prompts[group], [lengths[completion] for completion in ordered], attention_cost)
        planned.append(
            [
                Row(group, tuple(part), prompts[group] + sum(lengths[completion] for completion in part))
                for part in (ordered[i : i + size] for i in range(0, len(ordered), size))
            ]
        )
    return sorted(planned, key=lambda rows: (-max(row.length for row in rows), rows[0].group))


def _fill_bins(planned: list[list[Row]], max_tokens: int, min_count: int) -> list[list[list[Row]]]:
    """Neighbours in width go together, as long as their padded rows fit."""
    if min_count > len(planned):
        raise ValueError(f"min_count is {min_count}, expected at most the number of groups, {len(planned)}")
    bins: list[list[list[Row]]] = []
    for rows in planned:
        if bins and _padded_tokens([*bins[-1], rows]) <= max_tokens:
            bins[-1].append(rows)
        else:
            bins.append([rows])
    while len(bins) < min_count:
        largest = max((i for i in range(len(bins)) if len(bins[i]) > 1), key=lambda i: (_padded_tokens(bins[i]), -i))
        middle = len(bins[largest]) // 2
        bins[largest : largest + 1] = [bins[largest][:middle], bins[largest][middle:]]
    return bins


def _padded_tokens(members: list[list[Row]]) -> int:
    lengths = [row.length for rows in members for row in rows]
    return len(lengths) * max(lengths)


def _build(batch: TrainBatch, rows: list[Row]) -> MicroBatch:
    width = max(row.length for row in rows)
    # Token 0 pads: nothing reads what becomes of it.
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    position_ids = torch.arange(width).repeat(len(rows), 1)
    segments = torch.full((len(rows), width), PADDING_SEGMENT)
    starts = _Starts(batch)
    places = []
    for index, row in enumerate(rows):
        places += _fill_row(input_ids[index], position_ids[index], segments[index], batch, starts, row, index * width)
    token_index, order = torch.cat([tokens for tokens, _ in places]).sort()
    is_shared = any(len(row.completions) > 1 for row in rows)
    return MicroBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_shared_prompt_mask(segments) if is_shared else None,
        predict_index=torch.cat([predicting for _, predicting in places])[order],
        target_ids=batch.token_ids_T[token_index],
        token_index=token_index,
        groups=tuple(sorted({row.group for row in rows})),
    )


class _Starts:
    """Where each prompt and each completion begins in the flat tensors of a batch, and its length."""

    def __init__(self, batch: TrainBatch) -> None:
        self.prompt_lengths = batch.prompt_lengths_N.tolist()
        self.lengths = batch.lengths_C.tolist()
        self.prompts = (batch.prompt_lengths_N.cumsum(0) - batch.prompt_lengths_N).tolist()
        self.completions = (batch.lengths_C.cumsum(0) - batch.lengths_C).tolist()


def _fill_row(
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    segments: torch.Tensor,
    batch: TrainBatch,
    starts: _Starts,
    row: Row,
    offset: int,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Write a row into (L,) tensors; for each completion its places in T, and the flat ones that predict it."""
    prompt_length, first = starts.prompt_lengths[row.group], starts.prompts[row.group]
    input_ids[:prompt_length] = batch.prompt_ids_P[first : first + prompt_length]
    segments[:prompt_length] = 0
    end, places = prompt_length, []
    for number, completion in enumerate(row.completions, start=1):
        length, first = starts.lengths[completion], starts.completions[completion]
        begin, end = end, end + length
        input_ids[begin:end] = batch.token_ids_T[first : first + length]
        position_ids[begin:end] = torch.arange(prompt_length, prompt_length + length)
        segments[begin:end] = number
        predicting = torch.arange(begin - 1, end - 1)
        # The prompt's last token predicts the first of every completion.
        predicting[0] = prompt_length - 1
        places.append((torch.arange(first, first + length), offset + predicting))
    return places


def _shared_prompt_mask(segments: torch.Tensor) -> torch.Tensor:
    """(R, L) -> bool (R, 1, L, L). Padding sees the prompt, since a query that sees nothing gives NaN."""
    queries, keys = segments[:, :, None], segments[:, None, :]
    return (((keys == 0) | (keys == queries)).tril())[:, None]
