"""The tensors that recorded decode steps read, filled anew for each step. Knows no model."""

import numpy as np
import torch

from server.engine.batch import Batch
from server.engine.cuda.pages import Pages, offsets, slots_at
from server.engine.placing import refill
from server.engine.step_layout import block_tables


class DecodeBuffers:
    """Inputs of a step in which up to `num_rows` sequences, of up to `num_columns` blocks each, compute one token.

    Their addresses never change. Rows beyond a step's own are padding: a token at position 0 of a sequence of its own,
    whose KV goes to `scratch_block`, which must be nobody's.
    """

    def __init__(
        self,
        *,
        num_rows: int,
        num_columns: int,
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
        block_size: int,
        scratch_block: int,
    ) -> None:
        self._num_rows = num_rows
        self._num_columns = num_columns
        self._block_size = block_size
        self._scratch_block = scratch_block
        self._embeddings = torch.zeros(num_rows, hidden_size, dtype=dtype, device=device)
        self._places = torch.empty(2, num_rows, dtype=torch.int64, device=device)  # positions, then slots
        # Query offsets, key offsets, numbers of keys, then tables: what a step needs of them lies together.
        self._sizes = [num_rows + 1, num_rows + 1, num_rows, num_rows * num_columns]
        self._pages = torch.empty(sum(self._sizes), dtype=torch.int32, device=device)
        self.fill(Batch((), ()), self._embeddings[:0], num_rows=num_rows)

    def fits(self, batch: Batch) -> bool:
        """Whether every sequence of a batch computes one token, and all of it has room here."""
        most_keys = self._num_columns * self._block_size
        return len(batch.items) <= self._num_rows and all(
            item.num_tokens == 1 and item.stop <= most_keys for item in batch.items
        )

    def embeddings(self, num_rows: int) -> torch.Tensor:
        """`[num_rows, hidden_size]`."""
        return self._embeddings[:num_rows]

    def positions(self, num_rows: int) -> torch.Tensor:
        """`[num_rows]`."""
        return self._places[0, :num_rows]

    def pages(self, num_rows: int) -> Pages:
        """Where the first rows' keys and values lie."""
        query_offsets, key_offsets, num_keys, tables = self._pages.split(self._sizes)
        return Pages(
            self._places[1, :num_rows],
            query_offsets[: num_rows + 1],
            key_offsets[: num_rows + 1],
            num_keys[:num_rows],
            tables.view(self._num_rows, self._num_columns)[:num_rows],
            most_queries=1,
            most_keys=self._num_columns * self._block_size,
        )

    def fill(self, batch: Batch, embeddings: torch.Tensor, *, num_rows: int) -> None:
        """Take a batch that fits, with embeddings `[T, hidden_size]`, and pad it up to `num_rows`."""
        length = len(batch.items)
        starts = np.array([item.start for item in batch.items], dtype=np.int64)
        positions = np.zeros(self._num_rows, dtype=np.int64)
        positions[:length] = starts
        tables = np.full((num_rows, self._num_columns), self._scratch_block)
        tables[:length] = block_tables(batch.items, self._num_columns)
        slots = np.full(self._num_rows, self._scratch_block * self._block_size)
        slots[:length] = slots_at(tables, np.arange(length), starts, block_size=self._block_size)
        num_keys = positions + 1
        self._embeddings[:length].copy_(embeddings)
        self._embeddings[length:num_rows].zero_()
        refill(self._places, np.stack([positions, slots]))
        numbers = [np.arange(self._num_rows + 1), offsets(num_keys), num_keys, tables.ravel()]
        pages = np.concatenate(numbers)
        refill(self._pages[: len(pages)], pages)
