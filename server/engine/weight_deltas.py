"""Changes what a stock model's linear modules compute for some rows of a step. Knows no batches and no cache.

Modules are hooked for the step alone, so steps without deltas run the model as it is; its weights are never touched.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from adapters.fitting import linear_modules, linear_shapes
from adapters.injections import InputScale, LowRank, ModuleDelta, OutputScale, WeightDelta
from server.engine.errors import SequenceFailed
from server.engine.fitting import FittingDeltas
from server.engine.placed_deltas import PlacedDeltas
from server.engine.placing import placed
from server.engine.step_inputs import DeltaRows

Rows = slice | torch.Tensor
"""Packed rows: a slice where they stand together, which is read and written in place."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What happens to some rows of one module; no row has two of them."""

    delta: ModuleDelta
    rows: Rows


class WeightDeltas:
    """The linear modules of one model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.modules: Mapping[str, nn.Module] = linear_modules(model)
        self._fitting = FittingDeltas(linear_shapes(model))
        self._device = model.device
        self.placed = PlacedDeltas(model.device, model.dtype)

    def require_fit(self, delta: WeightDelta) -> None:
        """Raise InjectionUnfit unless the delta changes modules of this model that every token goes through."""
        self._fitting.require_fit(delta)

    @contextmanager
    def over(self, deltas: Items[DeltaRows], *, num_rows: int) -> Iterator[None]:
        """What the model computes inside, of so many packed rows, has these deltas.

        A module that gets other rows, or is never called, raises SequenceFailed: an adapter that does nothing, or
        changes a neighbour, must not go unseen.
        """
        by_path: defaultdict[str, list[_Change]] = defaultdict(list)
        for each in deltas:
            rows = _rows(each.rows, self._device)
            for path, delta in self.placed.of(each.delta).modules.items():
                by_path[path].append(_Change(delta, rows))
        hooks = {path: _ModuleHook(path, changes, num_rows) for path, changes in by_path.items()}
        with ExitStack() as stack:
            for path, hook in hooks.items():
                stack.enter_context(hook.on(self.modules[path]))
            yield
        for path, hook in hooks.items():
            if hook.num_calls != 1:
                raise SequenceFailed(f"{path} was called {hook.num_calls} times: an adapter cannot change it")


class _ModuleHook:
    """Stands before and behind one module for one step."""

    def __init__(self, path: str, changes: list[_Change], num_rows: int) -> None:
        self._path = path
        self._scaling_inputs = [change for change in changes if isinstance(change.delta, InputScale)]
        self._changing_outputs = [change for change in changes if not isinstance(change.delta, InputScale)]
        self._num_rows = num_rows
        self.num_calls = 0

    @contextmanager
    def on(self, module: nn.Module) -> Iterator[None]:
        before = module.register_forward_pre_hook(self._before) if self._scaling_inputs else None
        behind = module.register_forward_hook(self._behind)
        try:
            yield
        finally:
            behind.remove()
            if before is not None:
                before.remove()

    def _before(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        scaled = self._flat(args[0]).clone()  # other modules read the same input
        for change in self._scaling_inputs:
            _scale(scaled, change.delta.tensors[0], change.rows)
        return scaled.view(args[0].shape), *args[1:]

    def _behind(self, _: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        self.num_calls += 1
        inputs, outputs = self._flat(args[0]), self._flat(output)  # the output is this call's own
        for change in self._changing_outputs:
            match change.delta:
                case LowRank(down, up):
                    _add(outputs, linear(_of(inputs, change.rows), down), up, change.rows)
                case OutputScale(factors):
                    _scale(outputs, factors, change.rows)
        return outputs.view(output.shape)

    def _flat(self, tensor: torch.Tensor) -> torch.Tensor:
        """`[T, values]`."""
        flat = tensor.flatten(0, -2)
        if flat.shape[0] != self._num_rows:
            raise SequenceFailed(
                f"{self._path} computes {flat.shape[0]} rows of {self._num_rows}: no adapter can change it"
            )
        return flat


def _rows(rows: NDArray[np.int64], device: torch.device) -> Rows:
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return slice(first, last + 1)
    return placed(rows, torch.int64, device)


def _of(tensor: torch.Tensor, rows: Rows) -> torch.Tensor:
    return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows)


def _add(target: torch.Tensor, inner: torch.Tensor, up: torch.Tensor, rows: Rows) -> None:
    """Add `up @ inner`, of inner rows `[N, rank]`, to rows of the target."""
    if isinstance(rows, slice):
        target[rows].addmm_(inner, up.T)
    else:
        target.index_add_(0, rows, linear(inner, up))


def _scale(target: torch.Tensor, factors: torch.Tensor, rows: Rows) -> None:
    if isinstance(rows, slice):
        target[rows].mul_(factors)
    else:
        target.index_copy_(0, rows, target.index_select(0, rows) * factors)
