"""Whether an adapter fits a base model is told from its config alone, as the engine tells it from its weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapters.base_shapes import BaseShapes
from adapters.errors import AdapterIncompatible
from adapters.fitting import linear_shapes
from adapters.injections import Injection, KVRows, LowRank, OutputScale, WeightDelta
from server.engine.families import find_reaches
from server.engine.layer_probe import probe_layers
from tests.engine.peft_kinds import every_kind
from tests.tiny import Family, save_tiny_base, tiny_model


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bloom"])
def test_shapes_are_those_of_the_engine_and_every_kind_fits(family: Family, tmp_path: Path) -> None:
    shapes = BaseShapes.of(save_tiny_base(family, tmp_path / "base"))
    model = tiny_model(family)
    assert {path: shape for path, shape in shapes.linear.items() if path != "lm_head"} == linear_shapes(model)
    layers = probe_layers(model, find_reaches(model))
    assert shapes.layers == {index: needs.shape for index, needs in layers.items()}
    for adapter in every_kind(family):
        if adapter.injection is not None:
            shapes.check(adapter.injection)


def test_what_no_server_can_apply_is_named(tmp_path: Path) -> None:
    shapes = BaseShapes.of(save_tiny_base("llama", tmp_path / "base"))
    rows = next(each.injection for each in every_kind("llama") if isinstance(each.injection, KVRows))
    path = "model.layers.1.mlp.down_proj"
    unfit: dict[str, Injection] = {
        "model.layers.7.mlp.down_proj": WeightDelta("a", {"model.layers.7.mlp.down_proj": OutputScale(torch.ones(64))}),
        path: WeightDelta("b", {path: LowRank(torch.ones(2, 7), torch.ones(64, 2))}),
        "layers": replace(rows, keys=rows.keys[1:], values=rows.values[1:]),
        "heads": replace(rows, keys=rows.keys.flatten(2)[:, :, None], values=rows.values.flatten(2)[:, :, None]),
    }
    for said, injection in unfit.items():
        with pytest.raises(AdapterIncompatible, match=said):
            shapes.check(injection)
