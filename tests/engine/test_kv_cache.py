"""Copies between blocks, and numbers on their way to a device."""

import numpy as np
import torch

from adapters.fitting import LayerShape
from adapters.injections import KVRows
from server.engine.batch import BlockCopy
from server.engine.kv_cache import KVCache
from server.engine.placing import placed, placed_together, refill
from server.engine.step_inputs import KVPlacement

CPU = torch.device("cpu")
SHAPES = {0: LayerShape(2, 3, 5), 4: LayerShape(1, 3, 3)}


def test_many_copies_at_once_move_the_first_rows_and_nothing_else() -> None:
    cache = KVCache(SHAPES, num_blocks=8, block_size=4, dtype=torch.float32, device=CPU)
    tensors = [*cache.keys.values(), *cache.values.values()]
    for tensor in tensors:
        tensor.copy_(torch.randn(tensor.shape))
    before = [tensor.clone() for tensor in tensors]
    cache.copy(())
    cache.copy((BlockCopy(0, 5, 3), BlockCopy(0, 2, 1), BlockCopy(7, 6, 4)))
    for tensor, old in zip(tensors, before, strict=True):
        expected = old.clone()
        expected[20:23], expected[8:9], expected[24:28] = old[0:3], old[0:1], old[28:32]
        assert torch.equal(tensor, expected)


def test_given_rows_go_to_their_slots_in_every_layer_and_nowhere_else() -> None:
    shape = LayerShape(2, 3, 3)
    cache = KVCache({4: shape, 1: shape}, num_blocks=4, block_size=4, dtype=torch.bfloat16, device=CPU)
    given = KVRows("a", torch.arange(1, 85.0).view(2, 7, 2, 3), -torch.arange(1, 85.0).view(2, 7, 2, 3))
    cache.write(KVPlacement(given, 2, 6, (3, 1)))
    slots = [14, 15, 4, 5]
    for row, layer in enumerate((1, 4)):
        assert torch.equal(cache.keys[layer][slots].float(), given.keys[row, 2:6])
        assert torch.equal(cache.values[layer][slots].float(), given.values[row, 2:6])
        others = [slot for slot in range(16) if slot not in slots]
        assert not cache.keys[layer][others].any()
        assert not cache.values[layer][others].any()


def test_arrays_sent_in_one_piece_arrive_in_their_shapes() -> None:
    arrays = [np.arange(6).reshape(2, 3), np.empty((0,), dtype=np.int64), np.array([[7], [8]])]
    sent = placed_together(arrays, torch.int32, CPU)
    assert [tensor.tolist() for tensor in sent] == [[[0, 1, 2], [3, 4, 5]], [], [[7], [8]]]
    assert {tensor.dtype for tensor in sent} == {torch.int32}
    assert all(tensor.is_contiguous() for tensor in sent)


def test_numbers_take_the_type_that_is_asked_for() -> None:
    assert placed([1, 2], torch.int64, CPU).dtype == torch.int64
    assert torch.equal(placed([0.5, 2], torch.bfloat16, CPU), torch.tensor([0.5, 2], dtype=torch.bfloat16))
    target = torch.zeros(4, dtype=torch.int32)
    refill(target[1:3], np.array([5, 6]))
    assert target.tolist() == [0, 5, 6, 0]
