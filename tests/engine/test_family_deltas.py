"""Weight deltas on every linear module of every family that is served, against weights with the same deltas merged."""

import copy
from collections import defaultdict

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from adapters.fitting import linear_modules, linear_shapes
from adapters.injections import LowRank, WeightDelta
from server.engine.errors import SequenceFailed
from tests.engine.build import greedy
from tests.engine.family_models import family_model
from tests.engine.noting import noting_of
from tests.engine.test_families import SERVED, _engine, _prompts

FAILING = frozenset(
    {
        *("bert", "electra", "ernie", "modernbert-decoder"),  # their heads have a layer that some tokens go through
        *("llama4_text", "longcat_flash", "phimoe"),  # routers that give more than one tensor, or are not called
        "gemma3",  # it has eyes, which see nothing here
    }
)
"""Families of which not every linear module can be changed: an adapter that tries is not served."""
LARGEST_DIFFERENCE = 1e-4
"""In largest logits."""


def _delta(model: PreTrainedModel) -> WeightDelta:
    generator = torch.Generator().manual_seed(0)
    modules = {
        path: LowRank(
            torch.randn(2, shape.num_inputs, generator=generator) / 5,
            torch.randn(shape.num_outputs, 2, generator=generator) / 5,
        )
        for path, shape in linear_shapes(model).items()
    }
    return WeightDelta("delta", modules)


def _merged(model: PreTrainedModel, delta: WeightDelta) -> PreTrainedModel:
    merged = copy.deepcopy(model)
    modules = linear_modules(merged)
    with torch.no_grad():
        for path, change in delta.modules.items():
            assert isinstance(change, LowRank)
            module, weight = modules[path], change.up @ change.down
            parameter = module.get_parameter("weight")
            parameter.add_(weight if isinstance(module, nn.Linear) else weight.T)
    return merged


@pytest.mark.slow
@pytest.mark.parametrize("family", SERVED)
def test_deltas_compute_what_merged_weights_do_or_fail_alone(family: str) -> None:
    model = family_model(family)
    delta = _delta(model)
    stock = {False: copy.deepcopy(model), True: _merged(model, delta)}
    engine = _engine(model)
    noting = noting_of(engine)
    for number, prompt in enumerate(_prompts()):
        engine.add_request(number, prompt, greedy(6), delta if number % 2 else None)
    answers: defaultdict[int, list[int]] = defaultdict(list)
    failed = set()
    while engine.has_work:
        for output in engine.step():
            failed |= {output.request_id} if isinstance(output.error, SequenceFailed) else set()
            answers[output.request_id] += [] if output.token_id is None else [output.token_id]
    assert failed == ({1, 3, 5} if family in FAILING else set())
    for number, prompt in enumerate(_prompts()):
        if number not in failed:
            with torch.inference_mode():
                logits = stock[number % 2 == 1](input_ids=torch.tensor([prompt + answers[number]]), use_cache=False)
            made = torch.stack(noting.logits_of[number])
            expected = logits.logits[0, len(prompt) - 1 :][: len(made)]
            assert float((made - expected).abs().max() / expected.abs().max()) <= LARGEST_DIFFERENCE
