"""Every method: its gradients, what it starts as, what is published, and what is refused."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from rich.console import Console
from safetensors.torch import load_file

from adapters.base_model import load_weights
from adapters.files import MAX_FILE_BYTES
from adapters.injections import KVRows, SoftPrompt, WeightDelta
from adapters.store import AdapterStore
from adapters.tensor_file import WEIGHTS_FILE
from tests.tiny import Family, load_peft, tiny_model, tiny_tokenizer
from tests.training.rows import ENGLISH, tiny_config, write_jsonl
from training.batch_loss import PackedLoss, PaddedLoss
from training.config import TrainConfig
from training.config_reading import load_train_config
from training.errors import ConfigError
from training.examples import Collator
from training.model import add_adapter
from training.prepare import prepare_run
from training.run import TrainResult, train

CPU = torch.device("cpu")
MOSTLY_SLOW = [
    "prompt_tuning",
    "lora",
    *(
        pytest.param(method, marks=pytest.mark.slow)
        for method in ("p_tuning", "prefix_tuning", "multitask_prompt_tuning", "ia3")
    ),
]
METHODS = ["prompt_tuning", "p_tuning", "prefix_tuning", "multitask_prompt_tuning", "lora", "ia3"]
INJECTIONS = {"prefix_tuning": KVRows, "lora": WeightDelta, "ia3": WeightDelta}


def _config(base: Path, tmp_path: Path, method: str, **settings: object) -> TrainConfig:
    started: dict[str, Any] = {"method": method, "prompt_tuning_init_text": None}
    if method not in ("lora", "ia3"):
        started["prompt_tuning_init_text"] = None if "init_adapter" in settings else "Answer:"
    return tiny_config(base, tmp_path, **(started | settings))


def _train(config: TrainConfig) -> TrainResult:
    return train(config, console=Console(file=io.StringIO()))


def _model(config: TrainConfig, base: Path) -> Any:
    run = prepare_run(config, Console(file=io.StringIO()))
    weights = load_weights(base, dtype=torch.float32, device=CPU)
    return add_adapter(weights, run.base, config, run.train.answered), run


def _ids(text: str) -> list[int]:
    ids: list[int] = tiny_tokenizer()(text)["input_ids"]
    return ids


def _embeddings(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.get_input_embeddings().weight.detach()
    return weight


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_gradients_are_those_of_pefts_own_path(
    tmp_path: Path, bases: dict[Family, Path], family: Family, method: str
) -> None:
    model, run = _model(_config(bases[family], tmp_path, method), bases[family])
    batch = Collator(pad_id=0)([example.features() for example in run.train.examples[:6]])
    gradients = []
    for loss in (PaddedLoss(model, max_rows=6), PackedLoss(model, max_tokens=150)):
        for piece in loss.pieces(batch):
            piece.backward()
        gradients.append([each.grad.clone() for each in model.parameters() if each.requires_grad])
        model.zero_grad()
    plain, packed = gradients
    # BLOOM normalises embeddings, so what only makes a token longer has a gradient of 0, and all of it is rounding.
    rounding = 1e-7 * sum(float(each.norm()) for each in plain)
    assert rounding > 0
    assert all(
        float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm()) + rounding
        for ours, theirs in zip(packed, plain, strict=True)
    )


@pytest.mark.parametrize("method", MOSTLY_SLOW)
def test_a_run_publishes_what_the_server_and_peft_read(tmp_path: Path, bases: dict[Family, Path], method: str) -> None:
    held_out = write_jsonl(tmp_path / "held_out.jsonl", ENGLISH[:4])
    config = _config(bases["llama"], tmp_path, method, eval_data=held_out, max_steps=8, learning_rate=0.02)
    result = _train(config)
    store = AdapterStore(tmp_path / "store")
    adapter = store.read("tiny", result.manifest.digest)
    assert adapter.manifest.kind == method
    assert isinstance(adapter.injection, INJECTIONS.get(method, SoftPrompt))
    facts = adapter.manifest.training
    assert facts is not None
    assert facts.method == method
    assert facts.evaluation is not None
    assert facts.evaluation.loss_after < facts.evaluation.loss_before
    assert adapter.manifest.probes is not None
    assert ("lora_r" in facts.settings) == (method == "lora")
    if method != "multitask_prompt_tuning":  # PEFT asks for a task on every call
        assert load_peft(tiny_model("llama"), result.path).active_peft_config.peft_type == method.upper()


def test_a_multitask_prompt_is_that_of_its_task(tmp_path: Path, bases: dict[Family, Path]) -> None:
    config = _config(bases["llama"], tmp_path, "multitask_prompt_tuning", num_tasks=3, task_id=2, learning_rate=0.1)
    result = _train(config)
    assert result.manifest.task == 2
    adapter = AdapterStore(tmp_path / "store").read("tiny", result.manifest.digest)
    assert isinstance(adapter.injection, SoftPrompt)
    assert json.loads((result.path / "adapter_config.json").read_text())["num_tasks"] == 3


# -- starts ------------------------------------------------------------------------------------------------------------


def test_a_prefix_starts_as_a_text_zeros_or_random_numbers(tmp_path: Path, bases: dict[Family, Path]) -> None:
    weights = {}
    for init in ("text", "zero", "random"):
        text = "Answer:" if init == "text" else None
        config = _config(
            bases["llama"], tmp_path, "prefix_tuning", prefix_tuning_init=init, prompt_tuning_init_text=text
        )
        model, _ = _model(config, bases["llama"])
        weights[init] = model.prompt_encoder["default"].embedding.weight.detach()
    assert [len(weights[init]) for init in ("text", "zero", "random")] == [len("Answer:"), 20, 20]
    assert not weights["zero"].any()
    assert weights["random"].any()
    base = tiny_model("llama")
    cache = base(input_ids=torch.tensor([_ids("Answer:")]), use_cache=True).past_key_values
    rows = weights["text"].view(len("Answer:"), 3, 2, 2, 16)  # [tokens, layers, 2, KV heads, head_dim]
    assert torch.allclose(rows[:, 1, 0].transpose(0, 1), cache.layers[1].keys[0], atol=1e-5)
    assert torch.allclose(rows[:, 2, 1].transpose(0, 1), cache.layers[2].values[0], atol=1e-5)


def test_a_prefix_from_a_text_answers_as_the_text_would(tmp_path: Path, bases: dict[Family, Path]) -> None:
    model, _ = _model(_config(bases["llama"], tmp_path, "prefix_tuning"), bases["llama"])
    ids = torch.tensor([_ids("hello")])
    text = torch.tensor([_ids("Answer:")])
    with torch.no_grad():
        prefixed = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        whole = tiny_model("llama")(input_ids=torch.cat([text, ids], dim=1)).logits[0, -5:]
    assert torch.allclose(prefixed, whole, atol=1e-4)


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning", "multitask_prompt_tuning"])
def test_virtual_tokens_start_as_a_text(tmp_path: Path, bases: dict[Family, Path], method: str) -> None:
    model, _ = _model(_config(bases["llama"], tmp_path, method, num_virtual_tokens=9), bases["llama"])
    prompt = model.get_prompt(batch_size=1)[0].detach()
    assert torch.allclose(prompt, _embeddings(tiny_model("llama"))[_ids("Answer:An")], atol=1e-5)


def test_a_soft_prompt_starts_as_the_commonest_answers(tmp_path: Path, bases: dict[Family, Path]) -> None:
    rows = [{"instruction": "i", "output": output} for output in ("ab", "ab", "c")]
    config = tiny_config(
        bases["llama"],
        tmp_path,
        rows,
        prompt_tuning_init="labels",
        prompt_tuning_init_text=None,
        num_virtual_tokens=4,
    )
    model, _ = _model(config, bases["llama"])
    embeddings = _embeddings(tiny_model("llama"))
    prompt = model.get_prompt(batch_size=1)[0].detach()
    assert torch.allclose(prompt[0], embeddings[_ids("ab")].mean(dim=0))
    assert torch.allclose(prompt[1], embeddings[_ids("c")[0]])
    assert all(any(torch.equal(row, each) for each in embeddings) for row in prompt[2:])  # of the vocabulary


@pytest.mark.parametrize("method", [each for each in MOSTLY_SLOW if getattr(each, "values", ("",)) != ("p_tuning",)])
def test_training_continues_from_an_adapter(tmp_path: Path, bases: dict[Family, Path], method: str) -> None:
    first = _train(_config(bases["llama"], tmp_path, method, learning_rate=0.05))
    start = str(first.path) if method == "lora" else "tiny"
    model, _ = _model(_config(bases["llama"], tmp_path, method, init_adapter=start), bases["llama"])
    saved = load_file(first.path / "adapter_model.safetensors")
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert {name: tensor.shape for name, tensor in state.items()} == {name: each.shape for name, each in saved.items()}
    assert all(torch.equal(state[name], saved[name]) for name in saved)


def test_prompt_tuning_continues_from_what_p_tuning_made(tmp_path: Path, bases: dict[Family, Path]) -> None:
    first = _train(_config(bases["llama"], tmp_path, "p_tuning"))
    model, _ = _model(_config(bases["llama"], tmp_path, "prompt_tuning", init_adapter="tiny"), bases["llama"])
    adapter = AdapterStore(tmp_path / "store").read("tiny", first.manifest.digest)
    assert isinstance(adapter.injection, SoftPrompt)
    assert torch.equal(model.get_prompt(batch_size=1)[0].detach(), adapter.injection.embeddings)


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"method": "lora", "num_virtual_tokens": 5}, "num_virtual_tokens: means nothing to method lora"),
        ({"method": "ia3", "lora_r": 4}, "lora_r: means nothing to method ia3"),
        ({"method": "p_tuning", "init_adapter": "x"}, "init_adapter: means nothing to method p_tuning"),
        ({"method": "prefix_tuning", "prompt_tuning_init": "text"}, "means nothing to method prefix_tuning"),
        ({"method": "multitask_prompt_tuning", "prompt_tuning_init": "vocab"}, "must be 'text' or 'random'"),
        ({"method": "multitask_prompt_tuning", "num_tasks": 2, "task_id": 2}, "task_id: 2 is not below num_tasks 2"),
        ({"method": "prefix_tuning", "prefix_tuning_init": "zero", "prompt_tuning_init_text": "x"}, "'text' only"),
        ({"method": "p_tuning", "prompt_tuning_init": "labels"}, "must be 'text' or 'random' with method p_tuning"),
        ({"method": "qlora"}, "method: 'qlora' is not supported"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_train_config(None, [], {"data": "rows.jsonl", "name": "x", **settings})


def test_starts_that_do_not_fit_are_refused(tmp_path: Path, bases: dict[Family, Path]) -> None:
    _train(_config(bases["llama"], tmp_path, "lora"))
    refused: list[tuple[Family, str, dict[str, object], str]] = [
        ("llama", "ia3", {"init_adapter": "tiny"}, "init_adapter: is of kind lora, not ia3"),
        ("llama", "lora", {"init_adapter": "tiny", "lora_r": 3}, "init_adapter: its tensors have other shapes"),
        ("llama", "lora", {"init_adapter": "nobody"}, "init_adapter: "),
        ("gpt2", "lora", {"init_adapter": "tiny"}, "init_adapter: "),
        ("llama", "lora", {"target_modules": ["no_such"]}, "method: lora on tiny-llama: "),
    ]
    for family, method, settings, problem in refused:
        with pytest.raises(ConfigError, match=problem):
            _model(_config(bases[family], tmp_path, method, **settings), bases[family])


def test_lora_trains_the_named_modules_of_named_layers(tmp_path: Path, bases: dict[Family, Path]) -> None:
    config = _config(bases["llama"], tmp_path, "lora", target_modules=["layers.1.mlp.down_proj"])
    model, *_ = _model(config, bases["llama"])
    trained = [name for name, each in model.named_parameters() if each.requires_grad]
    assert len(trained) == 2
    assert all("layers.1.mlp.down_proj.lora_" in name for name in trained)


def test_what_is_too_large_to_publish_is_not_trained(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAX_FILE_BYTES, WEIGHTS_FILE, 2 << 20)
    config = _config(bases["llama"], tmp_path, "lora", lora_r=256)
    with pytest.raises(ConfigError, match=r"method: lora would train [\d,]+ bytes here, over the limit of 1,048,576"):
        _model(config, bases["llama"])
