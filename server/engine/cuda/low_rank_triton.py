"""`LowRankKernel` in Triton: down to the rank, then up again, one program for a row and a part of it.

Each row looks its adapter's factors up by their addresses, so rows need no order; rows of one adapter find its factors
in the device's cache.
"""

import torch
import triton
import triton.language as tl

from server.engine.cuda.low_rank import LARGEST_RANK, SPLITS, LowRankTable

_BLOCK_RANKS = 16
_BLOCK_INPUTS = 256
_BLOCK_OUTPUTS = 128


@triton.jit
def _shrink(
    inputs,
    scratch,
    slots,
    addresses,
    ranks,
    num_inputs,
    input_stride,
    split_size,
    SPLITS: tl.constexpr,
    LARGEST_RANK: tl.constexpr,
    BLOCK_RANKS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
):
    row, part, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots + row)
    if slot < 0:
        return
    rank = tl.load(ranks + slot)
    if part * BLOCK_RANKS >= rank:
        return
    down = tl.multiple_of(tl.load(addresses + slot * 2).to(tl.pointer_type(inputs.dtype.element_ty)), 16)
    r = part * BLOCK_RANKS + tl.arange(0, BLOCK_RANKS)
    first = split * split_size
    last = tl.minimum(first + split_size, num_inputs)
    sums = tl.zeros((BLOCK_RANKS, BLOCK_INPUTS), dtype=tl.float32)
    for start in range(first, last, BLOCK_INPUTS):
        i = start + tl.arange(0, BLOCK_INPUTS)
        x = tl.load(inputs + row.to(tl.int64) * input_stride + i, mask=i < last, other=0.0).to(tl.float32)
        is_there = (r < rank)[:, None] & (i < last)[None, :]
        weights = tl.load(down + r[:, None] * num_inputs + i[None, :], mask=is_there, other=0.0).to(tl.float32)
        sums += weights * x[None, :]
    to = scratch + (row * SPLITS + split) * LARGEST_RANK + r
    tl.store(to, tl.sum(sums, axis=1), mask=r < rank)


@triton.jit
def _expand(
    outputs,
    scratch,
    slots,
    addresses,
    ranks,
    num_outputs,
    output_stride,
    SPLITS: tl.constexpr,
    LARGEST_RANK: tl.constexpr,
    BLOCK_RANKS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
):
    row, part = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + row)
    if slot < 0:
        return
    rank = tl.load(ranks + slot)
    if rank == 0:
        return
    up = tl.multiple_of(tl.load(addresses + slot * 2 + 1).to(tl.pointer_type(outputs.dtype.element_ty)), 16)
    n = part * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    splits = tl.arange(0, SPLITS)
    sums = tl.zeros((BLOCK_OUTPUTS,), dtype=tl.float32)
    for first in range(0, rank, BLOCK_RANKS):
        r = first + tl.arange(0, BLOCK_RANKS)
        at = scratch + (row * SPLITS + splits)[:, None] * LARGEST_RANK + r[None, :]
        hidden = tl.sum(tl.load(at, mask=(r < rank)[None, :], other=0.0), axis=0)
        is_there = (n < num_outputs)[:, None] & (r < rank)[None, :]
        weights = tl.load(up + n[:, None] * rank + r[None, :], mask=is_there, other=0.0).to(tl.float32)
        sums += tl.sum(weights * hidden[None, :], axis=1)
    to = outputs + row.to(tl.int64) * output_stride + n
    old = tl.load(to, mask=n < num_outputs, other=0.0).to(tl.float32)
    tl.store(to, (old + sums).to(outputs.dtype.element_ty), mask=n < num_outputs)


def triton_low_rank(
    inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
) -> None:
    """See `LowRankKernel`."""
    num_rows, num_inputs = inputs.shape
    num_outputs = outputs.shape[1]
    split_size = triton.cdiv(triton.cdiv(num_inputs, SPLITS), _BLOCK_INPUTS) * _BLOCK_INPUTS
    _shrink[(num_rows, LARGEST_RANK // _BLOCK_RANKS, SPLITS)](
        inputs,
        scratch,
        slots,
        table.addresses,
        table.ranks,
        num_inputs,
        inputs.stride(0),
        split_size,
        SPLITS=SPLITS,
        LARGEST_RANK=LARGEST_RANK,
        BLOCK_RANKS=_BLOCK_RANKS,
        BLOCK_INPUTS=_BLOCK_INPUTS,
    )
    _expand[(num_rows, triton.cdiv(num_outputs, _BLOCK_OUTPUTS))](
        outputs,
        scratch,
        slots,
        table.addresses,
        table.ranks,
        num_outputs,
        outputs.stride(0),
        SPLITS=SPLITS,
        LARGEST_RANK=LARGEST_RANK,
        BLOCK_RANKS=_BLOCK_RANKS,
        BLOCK_OUTPUTS=_BLOCK_OUTPUTS,
    )
