"""Sampling on a CUDA device: the CPU's choices, and one wait for the device in a step."""

import warnings

import pytest
import torch

from server.engine.sampler import Choice
from tests.engine.rows import outcomes
from tests.engine.test_sampler import _mixed_rows

pytestmark = pytest.mark.gpu


def _logits(num_rows: int) -> torch.Tensor:
    return torch.randn(num_rows, 500, generator=torch.Generator().manual_seed(0))


def test_cuda_chooses_as_the_cpu_does() -> None:
    rows = _mixed_rows()
    on_cpu, on_cuda = (outcomes(_logits(len(rows)).to(device), rows) for device in ("cpu", "cuda"))
    for ours, theirs in zip(on_cuda, on_cpu, strict=True):
        assert isinstance(ours, Choice)
        assert isinstance(theirs, Choice)
        assert ours.token_id == theirs.token_id
        if ours.logprobs is not None and theirs.logprobs is not None:
            assert ours.logprobs.logprob == pytest.approx(theirs.logprobs.logprob, abs=1e-4)


def test_the_host_waits_once_for_all_settings_together() -> None:
    rows = _mixed_rows()
    logits = _logits(len(rows)).cuda()
    outcomes(logits, rows)  # pinned memory is taken at the first call
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            outcomes(logits, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    assert len(waits) == 1, [str(wait.message) for wait in waits]
