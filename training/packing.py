"""Cuts a batch into packs: rows behind one another without padding, what they begin with in common once. Pure tensors.

A pack is a tree of one level. Its first tokens are the prefix that all its rows share; they are computed once. Behind
them stands what each row has of its own, which sees the prefix and itself, and no other row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from training.examples import IGNORED_LABEL


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One row of a batch, without padding: its tokens and their labels."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of a pack lie, counted from its first token, virtual ones included.

    `grid` is `[rows * longest]`: the place of each row's own tokens, rows one behind another, each filled up to the
    longest; `is_real` `[rows, longest]` says which are no filling; `places` `[own tokens]` is the way back, the grid's
    cell of each packed token behind the prefix. A filled-up key stands behind every real query of its row, so that the
    causal mask alone hides it.
    """

    num_shared: int
    rows: int
    longest: int
    grid: torch.Tensor
    is_real: torch.Tensor
    places: torch.Tensor

    @property
    def is_padded(self) -> bool:
        return len(self.places) < len(self.grid)


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows that are computed together.

    `ids` `[T]` has no virtual tokens, `positions` `[virtual + T]` has; `predictors` are the packed places, virtual
    tokens counted, whose next tokens are `targets`. `tokens` are those of the rows as they were, before sharing.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    layout: Layout
    predictors: torch.Tensor
    targets: torch.Tensor
    tokens: int


def unpadded_rows(batch: dict[str, torch.Tensor]) -> list[PackedRow]:
    """The rows of a batch that is padded on the right, those without a label left out: they teach nothing."""
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    rows = [PackedRow(ids[row][:length], labels[row][:length]) for row, length in enumerate(lengths)]
    return [row for row in rows if any(label != IGNORED_LABEL for label in row.labels[1:])]


def cut_packs(rows: Sequence[PackedRow], *, max_tokens: int) -> list[list[PackedRow]]:
    """Rows of like length together, at most `max_tokens` to compute in each pack, or one row.

    As few packs as that takes, and the largest as small as it can be.
    """
    ordered = sorted(rows, key=lambda row: len(row.ids))
    packs = _cut(ordered, max_tokens)
    too_few, enough = 0, max_tokens
    while len(packs) > 1 and enough - too_few > 1:
        middle = (too_few + enough) // 2
        smaller = _cut(ordered, middle)
        if len(smaller) == len(packs):
            packs, enough = smaller, middle
        else:
            too_few = middle
    return packs


def _cut(ordered: Sequence[PackedRow], max_tokens: int) -> list[list[PackedRow]]:
    packs: list[list[PackedRow]] = []
    shared = own = 0
    for row in ordered:
        if packs:
            common = _common_length(packs[-1][0], row, limit=shared)
            grown = own + len(row.ids)
            if grown - common * len(packs[-1]) <= max_tokens:
                packs[-1].append(row)
                shared, own = common, grown
                continue
        packs.append([row])
        shared, own = len(row.ids) - 1, len(row.ids)
    return packs


def make_pack(rows: Sequence[PackedRow], *, num_virtual_tokens: int, first_position: int, device: torch.device) -> Pack:
    """Lay out rows behind `num_virtual_tokens` of embeddings; the first packed token stands at `first_position`."""
    shared = _shared_length(rows)
    start = num_virtual_tokens + shared
    ids = list(rows[0].ids[:shared])
    positions = list(range(first_position, first_position + start))
    longest = max(len(row.ids) for row in rows) - shared
    grid: list[int] = []
    places: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(rows):
        own = len(row.ids) - shared
        at = num_virtual_tokens + len(ids)
        grid += [at + min(index, own - 1) for index in range(longest)]
        places += range(number * longest, number * longest + own)
        positions += range(first_position + start, first_position + start + own)
        for index, label in enumerate(row.labels[1:]):
            if label != IGNORED_LABEL:
                predictors.append(num_virtual_tokens + index if index < shared else at + index - shared)
                targets.append(label)
        ids += row.ids[shared:]
    layout = Layout(
        num_shared=start,
        rows=len(rows),
        longest=longest,
        grid=torch.tensor(grid, device=device),
        is_real=torch.tensor([[index < len(row.ids) - shared for index in range(longest)] for row in rows]).to(device),
        places=torch.tensor(places, device=device),
    )
    return Pack(
        ids=torch.tensor(ids, device=device),
        positions=torch.tensor(positions, device=device),
        layout=layout,
        predictors=torch.tensor(predictors, device=device),
        targets=torch.tensor(targets, device=device),
        tokens=sum(len(row.ids) for row in rows),
    )


def _shared_length(rows: Sequence[PackedRow]) -> int:
    """How many tokens all rows begin with; each keeps at least one of its own, and a row alone shares nothing."""
    if len(rows) == 1:
        return 0
    shared = min(len(row.ids) for row in rows) - 1
    for row in rows[1:]:
        shared = _common_length(rows[0], row, limit=shared)
    return shared


def _common_length(one: PackedRow, other: PackedRow, *, limit: int) -> int:
    """How many of the first `limit` tokens are equal."""
    for index, (left, right) in enumerate(zip(one.ids[:limit], other.ids[:limit], strict=False)):
        if left != right:
            return index
    return min(limit, len(one.ids), len(other.ids))
