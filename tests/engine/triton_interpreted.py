"""Runs the Triton kernel on the CPU, by Triton's interpreter, which TRITON_INTERPRET=1 must have been set for.

`python -m tests.engine.triton_interpreted` says "right" or raises.
"""

import sys

import torch

from adapters.fitting import LinearShape
from server.engine.cuda.low_rank import LowRankTable, new_scratch
from server.engine.cuda.low_rank_triton import triton_low_rank
from server.engine.delta_check import check_low_rank_kernel

CPU = torch.device("cpu")
SHAPES = (LinearShape(64, 32), LinearShape(600, 130), LinearShape(2100, 7), LinearShape(7, 1))


def main() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        check_low_rank_kernel(triton_low_rank, SHAPES, dtype=dtype, device=CPU)
    check_rows_are_alone()
    check_strides()
    sys.stdout.write("right")


def check_rows_are_alone() -> None:
    """A row's numbers are the same, bit by bit, in any company; what is not a number stays in its row."""
    factors = [(torch.randn(rank, 300), torch.randn(40, rank)) for rank in (8, 20)]
    factors.append((torch.full((8, 300), torch.nan), torch.ones(40, 8)))
    inputs, outputs = torch.randn(5, 300), torch.randn(5, 40)
    slots = [0, 2, 1, -1, 0]
    together = _added(factors, inputs, outputs, slots)
    alone = [_added(factors, inputs[row : row + 1], outputs[row : row + 1], slots[row : row + 1]) for row in range(5)]
    assert torch.equal(together.isnan().all(dim=1), torch.tensor([False, True, False, False, False]))
    assert torch.equal(together[[0, 2, 3, 4]], torch.cat(alone)[[0, 2, 3, 4]])
    assert torch.equal(together[3], outputs[3])


def check_strides() -> None:
    """Rows that lie further apart than they are wide."""
    factors = [(torch.randn(3, 300), torch.randn(40, 3))]
    inputs, outputs = torch.randn(4, 512)[:, 100:400], torch.randn(4, 64)
    expected = _added(factors, inputs.contiguous(), outputs[:, :40].contiguous(), [0, -1, 0, 0])
    before = outputs.clone()
    slots = torch.tensor([0, -1, 0, 0], dtype=torch.int32)
    triton_low_rank(inputs, outputs[:, :40], slots, _table(factors), new_scratch(4, CPU))
    assert torch.equal(outputs[:, :40], expected)
    assert torch.equal(outputs[:, 40:], before[:, 40:])


def _table(factors: list[tuple[torch.Tensor, torch.Tensor]]) -> LowRankTable:
    addresses = torch.tensor([[down.data_ptr(), up.data_ptr()] for down, up in factors])
    return LowRankTable(addresses, torch.tensor([len(down) for down, _ in factors], dtype=torch.int32))


def _added(
    factors: list[tuple[torch.Tensor, torch.Tensor]], inputs: torch.Tensor, outputs: torch.Tensor, slots: list[int]
) -> torch.Tensor:
    made = outputs.clone()
    triton_low_rank(inputs, made, torch.tensor(slots, dtype=torch.int32), _table(factors), new_scratch(len(slots), CPU))
    return made


if __name__ == "__main__":
    main()
