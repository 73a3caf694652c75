"""The start-up check of recorded low-rank changes: the kernel by itself, and a step of it against an eager one.

Knows no requests. What differs is not used: adapters then run eagerly, which is slower and never wrong.
"""

from collections.abc import Callable, Collection, Mapping

import torch

from adapters.fitting import LinearShape
from adapters.injections import LowRank, ModuleDelta, WeightDelta
from server.engine.batch import Batch, ScheduledSequence
from server.engine.block_manager import BlockManager
from server.engine.cuda.low_rank import LARGEST_RANK, LowRankKernel, LowRankTable, new_scratch
from server.engine.errors import ModelUnsupported
from server.engine.model_runner import ModelRunner
from server.engine.sampling_params import SamplingParams
from server.engine.sequence import Sequence

_RANKS = (8, 1, LARGEST_RANK, 17)
_SLOTS = (2, -1, 0, 3, 1, 0, 4, -1)
"""Of the rows: adapters in no order, rows without one, and (4) an adapter that leaves the module alone."""
_ROUNDINGS = 4
_SUM_ERROR = 4e-6
"""Of the largest value: so many roundings of its last place, of which the kernel's own is one, and float32 sums."""
_MOST_SEQUENCES = 6


def check_low_rank_kernel(
    kernel: LowRankKernel, shapes: Collection[LinearShape], *, dtype: torch.dtype, device: torch.device
) -> None:
    """Compare the kernel with float64 for each shape of module. Raises ModelUnsupported when a value differs."""
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        factors = [
            (
                (torch.randn(rank, shape.num_inputs, generator=generator) / shape.num_inputs**0.5).to(device, dtype),
                (torch.randn(shape.num_outputs, rank, generator=generator) / rank**0.5).to(device, dtype),
            )
            for rank in _RANKS
        ]
        inputs = torch.randn(len(_SLOTS), shape.num_inputs, generator=generator).to(device, dtype)
        outputs = torch.randn(len(_SLOTS), shape.num_outputs, generator=generator).to(device, dtype)
        expected = outputs.double()
        for row, slot in enumerate(_SLOTS):
            if 0 <= slot < len(factors):
                down, up = factors[slot]
                expected[row] += up.double() @ (down.double() @ inputs[row].double())
        table = LowRankTable(
            torch.tensor([[down.data_ptr(), up.data_ptr()] for down, up in factors] + [[0, 0]]).to(device),
            torch.tensor([*_RANKS, 0], dtype=torch.int32).to(device),
        )
        scratch = new_scratch(len(_SLOTS), device).fill_(torch.nan)
        kernel(inputs, outputs, torch.tensor(_SLOTS, dtype=torch.int32).to(device), table, scratch)
        difference = float((outputs.double() - expected).abs().max())
        limit = (_ROUNDINGS * torch.finfo(dtype).eps + _SUM_ERROR) * float(expected.abs().max())
        if not difference <= limit:
            raise ModelUnsupported(
                f"the kernel for low-rank changes of modules of {shape.num_inputs} inputs and {shape.num_outputs} "
                f"outputs is {difference:.3g} from what it should be (limit {limit:.3g})"
            )


def check_recorded_deltas(
    recorded: ModelRunner,
    eager: ModelRunner,
    shapes: Mapping[str, LinearShape],
    *,
    tolerance: float,
    vocab_size: int,
    block_size: int,
    num_blocks: int,
    max_num_seqs: int,
) -> None:
    """Compute one token each of some adapters' sequences by both; `shapes` are those of the recorded modules, by path.

    Uses the cache's first blocks, and keeps nothing there. Raises ModelUnsupported when logits differ by more than two
    roundings explain.
    """
    generator = torch.Generator().manual_seed(1)
    adapters = [
        _random_delta(shapes, 8, generator, of=lambda _: True),
        _random_delta(shapes, 3, generator, of=lambda number: number % 2 == 0),
        _random_delta(shapes, LARGEST_RANK, generator, of=lambda number: number % 2 == 1),
    ]
    blocks = BlockManager(num_blocks, block_size)
    ids = torch.randint(0, vocab_size, (min(_MOST_SEQUENCES, num_blocks, max_num_seqs),), generator=generator).tolist()
    sequences = [
        Sequence.create(number, [token_id], SamplingParams(max_tokens=1), cache_seed=b"self-check")
        for number, token_id in enumerate(ids)
    ]
    for sequence in sequences:
        assert blocks.admit(sequence) is not None, "a block each"
    batch = Batch(tuple(ScheduledSequence(sequence, 0, 1) for sequence in sequences), ())
    injections = {number: adapters[number % 4] for number in range(len(ids)) if number % 4 < 3}
    with torch.inference_mode():
        expected = eager.logits(batch, injections).float().cpu()
        for _ in range(2):  # the second finds adapters where the first one put them
            made = recorded.logits(batch, injections).float().cpu()
            difference = float((made - expected).std(dim=1).max() / expected.std())  # a padding token's may be all zero
            if not difference <= 2 * tolerance:
                raise ModelUnsupported(
                    f"logits of recorded steps with LoRA differ by {difference:.3g} standard deviations from those of "
                    f"eager ones (limit {2 * tolerance})"
                )


def _random_delta(
    shapes: Mapping[str, LinearShape], rank: int, generator: torch.Generator, *, of: Callable[[int], bool]
) -> WeightDelta:
    """Changes a module's outputs by about a third of its inputs' size."""
    changes: dict[str, ModuleDelta] = {}
    for number, path in enumerate(sorted(shapes)):
        if of(number):
            shape = shapes[path]
            down = torch.randn(rank, shape.num_inputs, generator=generator) / shape.num_inputs**0.5
            up = torch.randn(shape.num_outputs, rank, generator=generator) / (3 * rank**0.5)
            changes[path] = LowRank(down, up)
    return WeightDelta(f"self-check-{rank}", changes)
