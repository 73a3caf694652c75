"""Reads the tensors of a safetensors file whose header was checked. Knows no config and no kind of adapter."""

import safetensors.torch
import torch
from safetensors import SafetensorError

from adapters.errors import AdapterInvalid
from adapters.tensor_file import WEIGHTS_FILE, shortened


def load_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a file that was checked, as float32 on the CPU. Raises AdapterInvalid for values that overflow.

    A file may be large, so what the library reads goes as it is converted: beside the file there is never more than its
    tensors in float32.
    """
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError:  # whatever the library refuses beyond our own check of the header
        raise AdapterInvalid(WEIGHTS_FILE, "not a safetensors file") from None
    return {name: finite(name, tensors.pop(name).to(torch.float32)) for name in list(tensors)}


def finite(name: str, values: torch.Tensor) -> torch.Tensor:
    """The same values. Raises AdapterInvalid where a float16 base could not hold one of them."""
    lowest, highest = values.aminmax()  # NaN where any value is
    if not bool(lowest.isfinite() & highest.isfinite()):
        raise AdapterInvalid(WEIGHTS_FILE, f"holds NaN or infinite values, in '{shortened(name)}'")
    # A bfloat16 or float16 base casts the rows down: a value beyond float16 would become infinite there.
    if bool(torch.maximum(-lowest, highest) > torch.finfo(torch.float16).max):
        raise AdapterInvalid(
            WEIGHTS_FILE,
            f"holds values beyond ±{torch.finfo(torch.float16).max:.0f}, the largest of float16, "
            f"in '{shortened(name)}'",
        )
    return values
