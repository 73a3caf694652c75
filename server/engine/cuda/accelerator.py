"""What a CUDA device has and a CPU has not: a kernel for paged attention, and graphs. Knows no model and no cache."""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from server.engine.cuda.attention import VarlenKernel
from server.engine.cuda.decode import Recorder, Replay
from server.engine.cuda.low_rank import LowRankKernel

CUDA_BLOCK_SIZE = 256
"""FlashAttention 2 reads pages of a multiple of so many tokens."""
_HALF_TYPES = (torch.bfloat16, torch.float16)
_LEAST_CAPABILITY = (8, 0)
_NEEDED_ARGUMENTS = frozenset({"block_table", "seqused_k", "num_splits", "window_size", "enable_gqa", "scale"})
_WARM_UP_RUNS = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How attention and decode steps are computed fast, and the block size that this asks for."""

    attend: VarlenKernel
    record: Recorder
    block_size: int
    low_rank: LowRankKernel | None = None
    """What computes low-rank changes in recorded steps; without it, steps with weight deltas run eagerly."""


def find_accelerator(device: torch.device, dtype: torch.dtype) -> Accelerator | None:
    """What computes a model of this dtype on this device; None where that is the CPU's way, told in the log."""
    if device.type != "cuda":
        return None
    kernel = torch_kernel()
    if kernel is None or torch.version.hip is not None:
        reason = f"torch {torch.__version__} has no paged varlen_attn for this device"
    elif dtype not in _HALF_TYPES:
        reason = f"its kernel computes in bfloat16 and float16, not in {str(dtype).removeprefix('torch.')}"
    elif torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        reason = f"its kernel needs compute capability 8.0, {torch.cuda.get_device_name(device)} has less"
    else:
        return Accelerator(kernel, GraphRecorder(device), CUDA_BLOCK_SIZE, low_rank_kernel())
    logger.warning("no paged attention and no CUDA graphs: %s", reason)
    return None


def torch_kernel() -> VarlenKernel | None:
    """torch.nn.attention.varlen.varlen_attn, where this torch has it with pages."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # torch before 2.10
        return None
    if not inspect.signature(varlen_attn).parameters.keys() >= _NEEDED_ARGUMENTS:
        return None
    kernel: VarlenKernel = varlen_attn  # type: ignore[assignment]  # a tuple only where more than the output is asked
    return kernel


def low_rank_kernel() -> LowRankKernel | None:
    """The kernel in Triton, which comes with torch's CUDA builds; None, told in the log, where it did not."""
    try:
        from server.engine.cuda.low_rank_triton import triton_low_rank
    except ImportError as error:
        logger.warning("steps with LoRA are not recorded: %s", error)
        return None
    return triton_low_rank


class GraphRecorder:
    """A `Recorder` of CUDA graphs, which share one pool of memory: they are replayed one at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], None]) -> Replay:
        """Warm up on a side stream, where libraries make what they must not make in a capture; then capture."""
        current = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(current):  # a capture that fails leaves its own stream set: this one comes back
            side = torch.cuda.Stream(self._device)
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_RUNS):
                    run()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                run()
        replay: Replay = graph.replay
        return replay
