"""The tensors behind the blocks: for every layer, keys and values by slot. Knows no sequences."""

import numpy as np
import numpy.typing as npt
import torch

from adapters.fitting import LayerShape
from server.engine.batch import BlockCopy
from server.engine.placing import placed, placed_together
from server.engine.step_inputs import KVPlacement


class KVCache:
    """Slot `block * block_size + offset` holds the KV of one token, in every layer."""

    def __init__(
        self,
        layers: dict[int, LayerShape],
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.layers = dict(layers)
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.device = device
        self._dtype = dtype
        num_slots = num_blocks * block_size
        self.keys = {  # by layer index: [num_slots, num_kv_heads, key_dim]
            index: torch.zeros(num_slots, shape.num_kv_heads, shape.key_dim, dtype=dtype, device=device)
            for index, shape in layers.items()
        }
        self.values = {  # by layer index: [num_slots, num_kv_heads, value_dim]
            index: torch.zeros(num_slots, shape.num_kv_heads, shape.value_dim, dtype=dtype, device=device)
            for index, shape in layers.items()
        }

    @staticmethod
    def bytes_per_block(layers: dict[int, LayerShape], *, block_size: int, dtype: torch.dtype) -> int:
        """Memory of one block over all layers."""
        return sum(shape.num_elements for shape in layers.values()) * block_size * dtype.itemsize

    def copy(self, copies: tuple[BlockCopy, ...]) -> None:
        """Copy the first rows of blocks to other blocks, in every layer; no block is both copied from and to."""
        if not copies:
            return
        sources = np.concatenate([self._slots(copy.source, copy.num_rows) for copy in copies])
        targets = np.concatenate([self._slots(copy.target, copy.num_rows) for copy in copies])
        source, target = placed_together([sources, targets], torch.int64, self.device)
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor.index_copy_(0, target, tensor.index_select(0, source))

    def write(self, placement: KVPlacement) -> None:
        """Write given keys and values, of every layer in the order of layers, to their slots."""
        positions = np.arange(placement.start, placement.stop)
        blocks = np.array(placement.blocks)[positions // self.block_size]
        slots = placed(blocks * self.block_size + positions % self.block_size, torch.int64, self.device)
        rows = slice(placement.start, placement.stop)
        for given, cached in ((placement.source.keys, self.keys), (placement.source.values, self.values)):
            sent = placed(given[:, rows], self._dtype, self.device)
            for layer, tensor in zip(sorted(cached), sent, strict=True):
                cached[layer].index_copy_(0, slots, tensor)

    def _slots(self, block: int, num_rows: int) -> npt.NDArray[np.int64]:
        return block * self.block_size + np.arange(num_rows)
