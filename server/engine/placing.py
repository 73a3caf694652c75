"""Moves small values between the host and the device of the logits. Knows nothing of what they mean."""

from collections.abc import Sequence as Values

import numpy as np
import torch
from numpy.typing import NDArray


def placed(
    values: Values[int] | Values[float] | NDArray[np.generic], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The values on the device. On CUDA they go by pinned memory, and the host does not wait for them."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
