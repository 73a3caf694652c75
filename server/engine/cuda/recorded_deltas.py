"""Low-rank changes in recorded decode steps: hooks that the recording runs through. Knows no batches and no Triton."""

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn

from server.engine.cuda.delta_tables import DeltaTables
from server.engine.cuda.low_rank import LowRankKernel, new_scratch
from server.engine.placed_deltas import PlacedDelta, PlacedDeltas
from server.engine.step_inputs import DeltaRows


class RecordedDeltas:
    """The linear modules of one model, each followed by a kernel that adds what the row's adapter adds.

    A module that does not compute all rows once, in the model's dtype, is left out: adapters of it run eagerly.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        kernel: LowRankKernel,
        *,
        num_rows: int,
        dtype: torch.dtype,
        device: torch.device,
        placed: PlacedDeltas,
    ) -> None:
        self._modules = modules
        self._kernel = kernel
        self._dtype = dtype
        self._tables = DeltaTables(tuple(modules), num_rows=num_rows, placed=placed, device=device)
        self._scratch = new_scratch(num_rows, device)

    @property
    def paths(self) -> frozenset[str]:
        """The modules that adapters may change in recorded steps."""
        return self._tables.paths

    def fill(self, deltas: Items[DeltaRows]) -> list[PlacedDelta] | None:
        """See `DeltaTables.fill`."""
        return self._tables.fill(deltas)

    @contextmanager
    def over(self, num_rows: int) -> Iterator[None]:
        """The model, called once inside with so many rows, adds what the tables say at that time."""
        calls: Counter[str] = Counter()
        unfit: set[str] = set()
        with ExitStack() as stack:
            for path in self.paths:
                hook = partial(self._behind, path, num_rows, calls, unfit)
                stack.callback(self._modules[path].register_forward_hook(hook).remove)
            yield
        self._tables.leave_out([path for path in self.paths if path in unfit or calls[path] != 1])

    def _behind(
        self,
        path: str,
        num_rows: int,
        calls: Counter[str],
        unfit: set[str],
        _: nn.Module,
        args: tuple[torch.Tensor, ...],
        output: torch.Tensor,
    ) -> None:
        calls[path] += 1
        inputs = args[0].reshape(-1, args[0].shape[-1]).contiguous()
        if inputs.shape[0] != num_rows or not self._dtype == inputs.dtype == output.dtype or not output.is_contiguous():
            unfit.add(path)
            return
        outputs = output.view(num_rows, output.shape[-1])  # the output is this call's own
        self._kernel(inputs, outputs, self._tables.slots(num_rows), self._tables.table_of(path), self._scratch)
