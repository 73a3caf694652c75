"""`hotprompt evaluate`: every kind of adapter, from a directory, a store and a server, with its table and files."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from rich.console import Console
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from adapters.errors import AdapterNotFound
from adapters.files import read_adapter_directory
from adapters.store import AdapterStore
from tests.tiny import Family, tiny_tokenizer
from tests.training.rows import ENGLISH, write_jsonl
from training.config_reading import checked
from training.errors import TrainingError
from training.evaluate_adapter import EvaluateConfig, evaluate_adapter

KINDS: dict[str, Any] = {
    "prompt_tuning": PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5),
    "prefix_tuning": PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5),
    "lora": LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
}
LABELLED = [{"instruction": f"colour {number}", "output": "red" if number % 2 else "green"} for number in range(8)]


def _adapter(kind: str, base: Path, path: Path) -> Path:
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), KINDS[kind])
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(str(path), save_embedding_layers=False)
    return path


def _config(adapter: Path | str, data: Path, base: Path, **settings: Any) -> EvaluateConfig:
    settings = {"base": str(base), "dtype": "float32", "device": "cpu", "max_new_tokens": 4, **settings}
    return checked(EvaluateConfig, {"adapter": str(adapter), "data": data} | settings)


def _quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_loss_and_the_answers_are_pefts_own(kind: str, tmp_path: Path, bases: dict[Family, Path]) -> None:
    base, rows = bases["llama"], ENGLISH[:5]
    path = _adapter(kind, base, tmp_path / "adapter")
    report = tmp_path / "out" / "report.json"
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    comparison = evaluate_adapter(_config(path, data, base, report=report), _quiet())
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(path))
    model.train(mode=False)
    tokenizer = tiny_tokenizer()
    total, count = 0.0, 0
    for row, compared in zip(rows, comparison.rows, strict=True):
        prompt = tokenizer(f"user> {row['instruction']}{chr(10) if row['input'] else ''}{row['input']}\nassistant> ")
        answer = tokenizer(row["output"] + "</s>")["input_ids"]
        ids = torch.tensor([prompt["input_ids"] + answer])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -len(answer) - 1 : -1]
            made = model.generate(
                input_ids=torch.tensor([prompt["input_ids"]]),
                attention_mask=torch.ones(1, len(prompt["input_ids"]), dtype=torch.long),
                do_sample=False,
                max_new_tokens=4,
            )[0, len(prompt["input_ids"]) :]
        total += float(cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        count += len(answer)
        assert compared.adapter == tokenizer.decode(made, skip_special_tokens=True)
    assert comparison.metrics["loss"].adapter.value == pytest.approx(total / count, rel=1e-4)
    written = json.loads(report.read_text())
    assert written["metrics"]["loss"]["adapter"]["value"] == comparison.metrics["loss"].adapter.value
    assert len(written["rows"]) == 5
    assert str(tmp_path) not in json.dumps([written["data"], written["base"]])


def test_a_store_name_a_table_and_a_confusion_picture(tmp_path: Path, bases: dict[Family, Path]) -> None:
    path = _adapter("prompt_tuning", bases["llama"], tmp_path / "adapter")
    AdapterStore(tmp_path / "store").publish("mine", read_adapter_directory(path))
    rows = [*LABELLED, *LABELLED]
    config = _config(
        "mine",
        write_jsonl(tmp_path / "rows.jsonl", rows),
        bases["llama"],
        store=tmp_path / "store",
        limit=8,
        confusion=tmp_path / "confusion.png",
    )
    console = _quiet()
    comparison = evaluate_adapter(config, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "8 held-out rows (classification)" in printed
    assert "macro-F1" in printed
    assert "won 0 rows against the base" in printed
    assert sum(map(sum, comparison.confusion or ())) == 8
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    alone = evaluate_adapter(config.model_copy(update={"with_base": False, "confusion": None}), _quiet())
    assert alone.metrics["loss"].base is None
    assert alone.metrics["loss"].adapter == comparison.metrics["loss"].adapter


def test_labels_in_chinese_are_drawn_whatever_fonts_there_are(tmp_path: Path, bases: dict[Family, Path]) -> None:
    path = _adapter("prompt_tuning", bases["llama"], tmp_path / "adapter")
    rows = [{"instruction": f"判断 {number}", "output": "正面" if number % 2 else "负面"} for number in range(4)]
    picture = tmp_path / "confusion.svg"
    evaluate_adapter(
        _config(path, write_jsonl(tmp_path / "r.jsonl", rows), bases["llama"], confusion=picture), _quiet()
    )
    assert "<svg" in picture.read_text()


def test_what_is_not_there_is_told(tmp_path: Path, bases: dict[Family, Path]) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", LABELLED)
    with pytest.raises(AdapterNotFound):
        evaluate_adapter(_config("nobody", data, bases["llama"], store=tmp_path / "store"), _quiet())
    path = _adapter("prompt_tuning", bases["llama"], tmp_path / "adapter")
    with pytest.raises(TrainingError, match="cannot be written"):
        evaluate_adapter(_config(path, data, bases["llama"], report=data / "report.json"), _quiet())
    with pytest.raises(TrainingError, match=r"--url http://127\.0\.0\.1:9: no answer"):
        evaluate_adapter(_config("mine", data, bases["llama"], url="http://127.0.0.1:9"), _quiet())
