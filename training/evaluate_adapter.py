"""`hotprompt evaluate`: measures any adapter, from a directory, a store or a running server. Trains nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from adapters.base_model import DeviceName, DtypeName, choose_device, choose_dtype, load_weights, open_base_model
from adapters.chat_format import default_chat_format
from adapters.embedded_base import EMBEDDED_BASE_NAME
from adapters.errors import ChatFormatError
from adapters.files import CONFIG_FILE, AdapterFiles, read_adapter_directory
from adapters.home import default_store, home_directory
from adapters.injections import KVRows, SoftPrompt
from adapters.store import AdapterStore
from adapters.tensor_file import WEIGHTS_FILE
from adapters.weights import Adapter, check_compatible, read_adapter
from training.comparison import Comparison, compare_rows
from training.comparison_table import print_comparison
from training.config import Sources, Task
from training.confusion_picture import write_confusion
from training.conversation import Conversation, rows_digest
from training.data import read_source
from training.errors import DataError, TrainingError
from training.evaluate import Evaluator, InBatches, MeasuredRow, Subject
from training.examples import Example, encode_rows
from training.model import max_positions
from training.model_format import LocalFormat, ModelFormat
from training.one_by_one import OneByOne
from training.progress import evaluation_progress, say
from training.remote import RemoteModels
from training.remote_format import ServerFormat
from training.row_forms import DataFormat
from training.server_connection import ServerConnection

_UNLIMITED = 1 << 30


class EvaluateConfig(BaseModel):
    """What is measured, on what, and where the report goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str = Field(min_length=1, max_length=4096)
    """a directory, a name of the store (or name@digest), or with `url` a name of the server"""
    data: Sources
    """held-out rows, in any form that training reads"""
    data_format: DataFormat = "auto"
    base: str = EMBEDDED_BASE_NAME
    store: Path = Field(default_factory=default_store)
    url: str | None = None
    """a running server that answers, in place of this machine"""
    api_key: str | None = Field(default=None, repr=False)
    with_base: bool = True
    """whether the base model is measured beside it"""
    task: Task = "auto"
    limit: int | None = Field(default=None, ge=1)
    """measure the first so many rows"""
    max_new_tokens: int | None = Field(default=None, ge=1, le=65_536)
    batch_size: int = Field(default=16, ge=1, le=4096)
    dtype: DtypeName = "auto"
    device: DeviceName = "auto"
    seed: int = Field(default=42, ge=0, lt=1 << 32)
    report: Path | None = None
    """JSON file with every figure and every answer"""
    confusion: Path | None = None
    """picture of the confusion matrices, PNG, SVG or PDF by the name's end"""


@dataclass(frozen=True, slots=True)
class _Sides:
    base_name: str
    base: Sequence[MeasuredRow] | None
    adapter: Sequence[MeasuredRow]


def evaluate_adapter(config: EvaluateConfig, console: Console) -> Comparison:
    """Measure an adapter beside its base model, print the tables, and write what is asked for.

    Raises TrainingError, AdapterError and BaseModelError.
    """
    rows = [row for source in config.data for row in read_source(source, config.data_format).rows][: config.limit]
    sides = _through_server(config, config.url, rows, console) if config.url else _here(config, rows, console)
    comparison = compare_rows(sides.base, sides.adapter, task=config.task, seed=config.seed)
    print_comparison(console, comparison, adapter=config.adapter, base=sides.base_name)
    if config.report is not None:
        _write_report(config.report, config, comparison, sides.base_name, rows)
        say(console, f"report: {config.report}")
    if config.confusion is not None and comparison.confusion is not None:
        write_confusion(comparison, config.confusion, base=sides.base_name, adapter=config.adapter)
        say(console, f"confusion matrix: {config.confusion}")
    return comparison


def _through_server(config: EvaluateConfig, url: str, rows: Sequence[Conversation], console: Console) -> _Sides:
    def measured(model: str) -> list[MeasuredRow]:
        with evaluation_progress(console, f"measuring {model}", len(examples)) as advance:
            return models.measure(model, examples, max_new_tokens=config.max_new_tokens, advance=advance)

    with ServerConnection(url, flag="--url", api_key=config.api_key) as connection:
        base_name = connection.base_name()
        model_format = ServerFormat.of(connection, config.adapter)
        models = RemoteModels(connection, model_format.max_length)
        examples = _examples(rows, model_format, max_length=model_format.max_length, console=console)
        adapter = measured(config.adapter)
        return _Sides(base_name, measured(base_name) if config.with_base else None, adapter)


def _examples(
    rows: Sequence[Conversation], model_format: ModelFormat, *, max_length: int, console: Console
) -> Sequence[Example]:
    """Rows in tokens, those with room for an answer."""
    try:
        encoded = encode_rows(rows, model_format, max_length=max_length)
    except ChatFormatError as error:
        raise DataError([f"data: {error}"]) from error
    if encoded.num_cut:
        say(console, f"warning: {encoded.num_cut:,} rows are longer than the base model, and cut")
    if not encoded.answered:
        raise DataError(["data: no row fits into the base model"])
    return encoded.answered


def _here(config: EvaluateConfig, rows: Sequence[Conversation], console: Console) -> _Sides:
    adapter, files = _read(config)
    base = open_base_model(config.base, home=home_directory())
    check_compatible(adapter.manifest, base.identity)
    device = choose_device(config.device)
    weights = load_weights(base.path, dtype=choose_dtype(config.dtype, device), device=device)
    limit = max_positions(weights)
    max_length = _UNLIMITED if limit is None else limit - adapter.injection.num_virtual_tokens
    chat_format = adapter.manifest.chat_format or default_chat_format(base.tokenizer)
    examples = _examples(rows, LocalFormat(base.tokenizer, chat_format), max_length=max_length, console=console)

    def measured(name: str, subject: Subject) -> Sequence[MeasuredRow]:
        with evaluation_progress(console, f"measuring {name}", len(examples)) as advance:
            return evaluator.measure(subject, advance=advance).rows

    evaluator = Evaluator(weights, base.tokenizer, examples, config.batch_size, config.max_new_tokens)
    before = measured(base.name, InBatches(weights, None)) if config.with_base else None
    if isinstance(adapter.injection, SoftPrompt):
        rows_ = adapter.injection.embeddings.to(device)
        return _Sides(base.name, before, measured(config.adapter, InBatches(weights, rows_)))
    model = _with_adapter(files, weights)
    if isinstance(adapter.injection, KVRows):
        return _Sides(base.name, before, measured(config.adapter, OneByOne(model)))
    return _Sides(base.name, before, measured(config.adapter, InBatches(weights, None)))


def _read(config: EvaluateConfig) -> tuple[Adapter, AdapterFiles]:
    path = Path(config.adapter)
    if (path / CONFIG_FILE).exists():
        files = read_adapter_directory(path)
        return read_adapter("adapter", files), files
    store = AdapterStore(config.store)
    name, digest = store.resolve(config.adapter)
    return store.read(name, digest), read_adapter_directory(store.path_of(digest))


def _with_adapter(files: AdapterFiles, weights: torch.nn.Module) -> PeftModel:
    """PEFT's model of the two files that were checked; LoRA's and IA3's layers go into `weights` itself."""
    with TemporaryDirectory(prefix="hotprompt-evaluate-") as directory:
        (Path(directory) / CONFIG_FILE).write_bytes(files.config)
        (Path(directory) / WEIGHTS_FILE).write_bytes(files.weights)
        return PeftModel.from_pretrained(weights, directory)


def _write_report(
    path: Path, config: EvaluateConfig, comparison: Comparison, base_name: str, rows: Sequence[Conversation]
) -> None:
    facts = {
        "adapter": config.adapter,
        "base": base_name,
        "through": config.url,
        "data": [Path(source).name for source in config.data],
        "data_digest": rows_digest(rows),
        "seed": config.seed,
    }
    text = json.dumps(facts | comparison.to_json(), ensure_ascii=False, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written: {error.strerror}") from error
