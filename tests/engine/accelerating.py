"""What a CUDA device has, stated in plain torch for the CPU: the kernel as documented, and graphs as recorded calls."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from server.engine.cuda.accelerator import Accelerator
from server.engine.cuda.decode import Recorder
from server.engine.cuda.low_rank import LARGEST_RANK, LowRankKernel, LowRankTable


@torch.library.custom_op("hotprompt_tests::varlen_attn", mutates_args=())
def _varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    scale: float,
    left: int,
    right: int,
    seqused_k: torch.Tensor,
    block_table: torch.Tensor,
) -> torch.Tensor:
    """One operation, so that a recording holds no number that was read from a tensor."""
    output = torch.full_like(query, torch.nan)
    num_kv_heads = key.shape[2]
    for index, (first, last) in enumerate(zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True)):
        num_keys = int(seqused_k[index])
        assert num_keys == int(cu_seq_k[index + 1] - cu_seq_k[index])
        assert 0 < last - first <= max_q
        assert num_keys <= max_k
        pages = block_table[index, : -(-num_keys // key.shape[1])].long()
        k, v = (pool[pages].flatten(0, 1)[:num_keys].double() for pool in (key, value))
        for row in range(first, last):
            place = num_keys - (last - row)
            seen = slice(0 if left < 0 else max(0, place - left), num_keys if right < 0 else place + right + 1)
            q = query[row].double().view(num_kv_heads, -1, query.shape[2])  # [Hkv, G, D]
            scores = torch.einsum("hgd,shd->hgs", q, k[seen]) * scale
            attended = torch.einsum("hgs,shd->hgd", scores.softmax(dim=-1), v[seen])
            output[row] = attended.flatten(0, 1).to(query.dtype)
    return output


def varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: torch.Tensor,
    block_table: torch.Tensor,
    num_splits: int,
) -> torch.Tensor:
    """torch.nn.attention.varlen.varlen_attn with paged keys and values, with the checks of FlashAttention 2."""
    for numbers in (cu_seq_q, cu_seq_k, seqused_k):
        assert numbers.dtype == torch.int32
        assert numbers.is_contiguous()
    assert block_table.dtype == torch.int32
    assert block_table.stride(-1) == query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    assert len(cu_seq_q) - 1 == len(cu_seq_k) - 1 == len(seqused_k) == len(block_table)
    assert enable_gqa == (query.shape[1] != key.shape[2])
    assert num_splits == 1
    left, right = window_size
    output: torch.Tensor = _varlen_attn(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, left, right, seqused_k, block_table
    )
    return output


_WAITS = frozenset(
    {
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
        torch.ops.aten.is_nonzero.default,
        torch.ops.aten._unique2.default,
    }
)
"""What reads numbers back from the device: CUDA forbids it in a capture."""


class _Calls(TorchDispatchMode):
    """Notes every operation that runs inside, with its own tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._noted: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[torch.Tensor]]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        del types
        if function in _WAITS:
            raise RuntimeError(f"{function}: operation not permitted when stream is capturing")
        result = function(*arguments, **(keywords or {}))
        self._noted.append((function, arguments, keywords or {}, _tensors(result)))
        return result

    def replay(self) -> None:
        """Run the noted operations again: on the same outer tensors, and on what comes of them."""
        made: dict[int, torch.Tensor] = {}

        def current(tensor: torch.Tensor) -> torch.Tensor:
            return made.get(id(tensor), tensor)

        for function, arguments, keywords, results in self._noted:
            given = tree_map_only(torch.Tensor, current, (arguments, keywords))
            for old, new in zip(results, _tensors(function(*given[0], **given[1])), strict=True):
                made[id(old)] = new


def _tensors(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


@dataclass
class CallRecorder:
    """A recorder as strict as a CUDA graph: what a run read from Python stays as it was when it was recorded."""

    num_recorded: int = 0
    num_replayed: int = 0

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        run()
        calls = _Calls()
        with calls:
            run()
        self.num_recorded += 1

        def replay() -> None:
            self.num_replayed += 1
            calls.replay()

        return replay


@torch.library.custom_op("hotprompt_tests::low_rank", mutates_args=("outputs", "scratch"))
def _low_rank(
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    slots: torch.Tensor,
    addresses: torch.Tensor,
    ranks: torch.Tensor,
    scratch: torch.Tensor,
) -> None:
    """One operation, that finds factors where their addresses say, when it runs."""
    for row, slot in enumerate(slots.tolist()):
        if slot < 0 or int(ranks[slot]) == 0:
            continue
        rank = int(ranks[slot])
        assert rank <= scratch.shape[2] == LARGEST_RANK
        down_address, up_address = addresses[slot].tolist()
        down = _tensor_at(down_address, (rank, inputs.shape[1]), inputs.dtype)
        up = _tensor_at(up_address, (outputs.shape[1], rank), inputs.dtype)
        outputs[row] = (outputs[row].double() + up.double() @ (down.double() @ inputs[row].double())).to(outputs.dtype)
    scratch.fill_(torch.nan)


def _tensor_at(address: int, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    memory = (ctypes.c_char * (shape[0] * shape[1] * dtype.itemsize)).from_address(address)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def low_rank(
    inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
) -> None:
    """See `LowRankKernel`: the same by addresses, in float64."""
    assert inputs.is_contiguous()
    assert outputs.stride(1) == 1
    assert slots.dtype == table.ranks.dtype == torch.int32
    assert table.addresses.dtype == torch.int64
    assert inputs.dtype == outputs.dtype
    assert len(scratch) >= len(inputs) == len(outputs) == len(slots)
    _low_rank(inputs, outputs, slots, table.addresses, table.ranks, scratch)


def accelerator_of(
    record: Recorder, *, block_size: int = 16, low_rank_kernel: LowRankKernel | None = None
) -> Accelerator:
    """What computes on the CPU by way of a CUDA device's interface; `block_size` need not be a multiple of 256 here."""
    return Accelerator(varlen_attn, record, block_size, low_rank_kernel)
