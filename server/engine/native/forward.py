"""The native decoder as a step's forward pass: weights packed, KV in its own layout. Knows no requests."""

import ctypes
from collections.abc import Sequence as Rows
from ctypes import c_float, c_int32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from adapters.fitting import LayerShape
from adapters.injections import Injection, KVRows, WeightDelta
from server.engine.batch import Batch, BlockCopy
from server.engine.fitting import require_delta_fit, require_kv_fit
from server.engine.native.deltas import PackedDelta, PackedDeltas
from server.engine.native.library import load_library
from server.engine.native.modules import linear_modules
from server.engine.native.weights import DecoderShape, decoder_shape, head_weights, layer_weights, rotary_table
from server.engine.step_inputs import DeltaRows, KVPlacement, StepInputs

BLOCK_SIZE = 16
"""Tokens of a block: what one register of decoder.cpp holds."""
_MIN_POSITIONS = 4096
"""The start-up self-check may be longer than what requests are allowed."""


class _Shape(ctypes.Structure):
    """`Shape` of decoder.cpp."""

    _fields_ = (
        ("hidden", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("inner", c_int32),
        ("vocab", c_int32),
        ("layers", c_int32),
        ("is_int8", c_int32),
        ("eps", c_float),
        ("scale", c_float),
    )


class NativeForward:
    """Computes steps of a llama-shaped bfloat16 model on a CPU with AVX-512; int8 weights are quantised here.

    Holds its own packed copy of the weights: the model is not needed after this.
    """

    input_dtype = torch.float32
    device = torch.device("cpu")

    def __init__(
        self, model: PreTrainedModel, *, num_blocks: int, max_model_len: int, is_int8: bool, cache: Path
    ) -> None:
        """Raises NativeUnavailable, with the reason, where this model or this machine has no native decoder."""
        self._shape = decoder_shape(model)
        self._library = load_library(cache)
        self._rotary = rotary_table(model, max(max_model_len, _MIN_POSITIONS))
        block_elements = self._shape.num_kv_heads * BLOCK_SIZE * self._shape.head_dim
        self._kv = torch.zeros(self._shape.num_layers, 2, num_blocks, block_elements, dtype=torch.bfloat16)
        self._model = _new_model(self._library, self._shape, is_int8=is_int8)
        self._set_weights(model)
        self._modules = linear_modules(self._shape)
        self._deltas = PackedDeltas(self._library, self._model, self._modules)

    def __del__(self) -> None:
        if hasattr(self, "_model"):
            self._library.hotprompt_model_free(self._model)

    @property
    def num_packed_deltas(self) -> int:
        """Of how many adapters the decoder holds weight deltas."""
        return len(self._deltas)

    def require_fit(self, injection: Injection) -> None:
        """See `Forward`."""
        if isinstance(injection, KVRows):
            layer = LayerShape(self._shape.num_kv_heads, self._shape.head_dim, self._shape.head_dim)
            require_kv_fit(injection, dict.fromkeys(range(self._shape.num_layers), layer))
        elif isinstance(injection, WeightDelta) and injection not in self._deltas:
            require_delta_fit(injection, self._modules)

    def write_kv(self, placements: Rows[KVPlacement]) -> None:
        """See `Forward`."""
        for placement in placements:
            keys, values = (tensor.contiguous() for tensor in (placement.source.keys, placement.source.values))
            self._library.hotprompt_write_kv(
                self._model,
                _address(keys),
                _address(values),
                c_int32(placement.source.num_virtual_tokens),
                c_int32(placement.start),
                c_int32(placement.stop),
                _array(np.array(placement.blocks, dtype=np.int32)),
            )

    def logits(self, batch: Batch, inputs: StepInputs, rows: Rows[int]) -> torch.Tensor:
        """Logits `[R, vocab_size]`, float32, of packed rows after the inputs; see `Forward`."""
        return self.logits_and_hidden(batch, inputs, rows, ())[0]

    def logits_and_hidden(
        self, batch: Batch, inputs: StepInputs, rows: Rows[int], hidden_rows: Rows[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Forward`; both are float32, and the hidden states have not been rounded on the way."""
        assert max(item.stop for item in batch.items) <= len(self._rotary), "a position beyond the table of rotations"
        self._copy(batch.copies)
        hidden = inputs.embeddings.contiguous()
        positions = np.array([item.start for item in batch.items], dtype=np.int32)
        counts = np.array([item.num_tokens for item in batch.items], dtype=np.int32)
        tables = _block_tables(batch)
        packed = [self._deltas.of(each.delta) for each in inputs.deltas]
        handles = _delta_handles(inputs.deltas, packed, len(hidden))
        logit_rows = np.array(rows, dtype=np.int32)
        state_rows = np.array(hidden_rows, dtype=np.int32)
        logits = torch.empty(len(rows), self._shape.vocab_size)
        states = torch.empty(len(hidden_rows), self._shape.hidden_size)
        self._library.hotprompt_step(  # the interpreter's lock is free meanwhile
            self._model,
            _address(hidden),
            c_int32(len(hidden)),
            c_int32(len(positions)),
            _array(positions),
            _array(counts),
            _array(tables),
            c_int32(tables.shape[1]),
            c_void_p(None) if handles is None else _array(handles),
            c_int32(len(rows)),
            _array(logit_rows),
            _address(logits),
            c_int32(len(hidden_rows)),
            _array(state_rows),
            _address(states),
            c_int32(torch.get_num_threads()),
        )
        return logits, states

    def _copy(self, copies: tuple[BlockCopy, ...]) -> None:
        for copy in copies:
            self._library.hotprompt_copy_block(
                self._model, c_int32(copy.source), c_int32(copy.target), c_int32(copy.num_rows)
            )

    def _set_weights(self, model: PreTrainedModel) -> None:
        """Have weights packed and copied, layer by layer; the caches and the rotary table stay ours."""
        for index, layer in enumerate(layer_weights(model)):
            matrices = (layer.query, layer.key, layer.value)
            rest = (layer.output, layer.gate, layer.up, layer.down, layer.input_norm, layer.mlp_norm)
            self._library.hotprompt_set_layer(
                self._model,
                c_int32(index),
                *(_address(tensor) for tensor in (*matrices, layer.qkv_bias, *rest, layer.query_norm, layer.key_norm)),
                c_int32(layer.window or 0),
            )
            keys, values = self._kv[index]
            self._library.hotprompt_set_cache(self._model, c_int32(index), _address(keys), _address(values))
        head = head_weights(model)
        self._library.hotprompt_set_head(self._model, _address(head.logits), _address(head.norm))
        self._library.hotprompt_set_rotary(self._model, _address(self._rotary))


def _new_model(library: ctypes.CDLL, shape: DecoderShape, *, is_int8: bool) -> c_void_p:
    library.hotprompt_model_new.restype = c_void_p
    record = _Shape(
        hidden=shape.hidden_size,
        heads=shape.num_heads,
        kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        inner=shape.intermediate_size,
        vocab=shape.vocab_size,
        layers=shape.num_layers,
        is_int8=is_int8,
        eps=shape.norm_eps,
        scale=shape.head_dim**-0.5,
    )
    return c_void_p(library.hotprompt_model_new(ctypes.byref(record)))


def _block_tables(batch: Batch) -> NDArray[np.int32]:
    """`[items, most blocks]`; block 0 stands, unread, beyond a sequence's end."""
    lists = [item.sequence.block_table for item in batch.items]
    tables = np.zeros((len(lists), max(map(len, lists), default=0)), dtype=np.int32)
    for table, blocks in zip(tables, lists, strict=True):
        table[: len(blocks)] = blocks
    return tables


def _delta_handles(deltas: Rows[DeltaRows], packed: Rows[PackedDelta], num_rows: int) -> NDArray[np.uintp] | None:
    """`[num_rows]`, null for a row without a delta; None where no row has one."""
    if not deltas:
        return None
    handles = np.zeros(num_rows, dtype=np.uintp)
    for each, delta in zip(deltas, packed, strict=True):
        handles[each.rows] = delta.handle.value or 0
    return handles


def _address(tensor: torch.Tensor | None) -> c_void_p:
    if tensor is None:
        return c_void_p(None)
    assert tensor.is_contiguous(), "decoder.cpp counts on it"
    return c_void_p(tensor.data_ptr())


def _array(array: NDArray[Any]) -> c_void_p:
    return c_void_p(array.ctypes.data)
