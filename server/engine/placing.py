"""Moves numbers between the host and the device that computes. Knows no batches and no cache."""

from collections.abc import Sequence as Items
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Numbers = Items[int] | Items[float] | npt.NDArray[Any] | torch.Tensor


def placed(values: Numbers, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of numbers that the host has; on the host it may share their memory.

    To CUDA they go by pinned memory, which is kept until they are there: nobody waits.
    """
    return _on_host(values, dtype, device).to(device, non_blocking=True)


def placed_together(
    arrays: Items[npt.NDArray[np.integer[Any]]], dtype: torch.dtype, device: torch.device
) -> list[torch.Tensor]:
    """A tensor of each array's shape, all sent in one piece."""
    flat = placed(np.concatenate([array.ravel() for array in arrays]), dtype, device)
    parts = flat.split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def refill(target: torch.Tensor, values: Numbers) -> None:
    """Write numbers that the host has over what `target` holds, as `placed` sends them."""
    target.copy_(_on_host(values, target.dtype, target.device), non_blocking=True)


def fetched(*tensors: torch.Tensor) -> list[list[float]]:
    """Each tensor's values in row order, by one transfer, which is what a step waits for.

    They travel as float64, which holds float32 and ids exactly.
    """
    flat = [tensor.reshape(-1) for tensor in tensors]
    values: list[float] = torch.cat([tensor.double() for tensor in flat]).tolist()
    lists, start = [], 0
    for tensor in flat:
        lists.append(values[start : start + len(tensor)])
        start += len(tensor)
    return lists


def _on_host(values: Numbers, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    tensor = torch.as_tensor(values, dtype=dtype)
    return tensor.pin_memory() if device.type == "cuda" else tensor
