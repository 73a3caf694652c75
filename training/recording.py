"""The end of a run: its facts, probes and card go into the store, and on to another place. Trains nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from rich.console import Console

from adapters.errors import AdapterError
from adapters.files import read_adapter_directory
from adapters.manifest import AdapterManifest, EvaluationFacts, ManifestDraft, TrainingFacts
from adapters.probes import Probes
from training.card import model_card
from training.config import TrainConfig
from training.config_reading import scalars
from training.errors import PublishFailed, TrainingError
from training.export import adapter_files
from training.loop import LoopFacts
from training.model import count_parameters, virtual_tokens_of
from training.prepare import PreparedRun
from training.probes import make_probes
from training.progress import say
from training.publishing import Destination
from training.sources import source_name
from training.trainer import LossPoint

_KEYS_OF_THIS_MACHINE = {
    "base",
    "data",
    "eval_data",
    "store",
    "publish",
    "run_dir",
    "checkpoint_dir",
    "data_cache",
    "report_to",
    "name",
    "init_adapter",
}
"""Recorded elsewhere in the manifest without paths, or of no use to others."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The published adapter, its directory in the store, the logged losses, and whether Ctrl-C ended the loop."""

    manifest: AdapterManifest
    path: Path
    losses: Sequence[LossPoint]
    interrupted: bool


def _probes_unless_interrupted(model: PeftModel, run: PreparedRun, loop: LoopFacts, console: Console) -> Probes | None:
    """Ctrl-C here gives up the probes, not the trained adapter; a second one stops at once."""
    try:
        say(console, "making probes")
        return make_probes(model, run.base.tokenizer, run.chat_format, run.held_out or run.train.answered)
    except KeyboardInterrupt:
        if loop.interrupted:
            raise
        say(console, "making probes interrupted; saving the adapter without them (Ctrl-C again: stop at once)")
        return None


def publish(
    model: PeftModel,
    run: PreparedRun,
    config: TrainConfig,
    *,
    dtype: torch.dtype,
    loop: LoopFacts,
    evaluation: EvaluationFacts | None,
    console: Console,
) -> TrainResult:
    """Make probes and a card, and publish to the run's own store. Raises StoreFailure."""
    facts = TrainingFacts(
        method=config.method,
        data=", ".join(map(source_name, config.data))[:256],
        data_digest=run.data_digest,
        rows=len(run.train.examples),
        steps=loop.steps,
        interrupted=loop.interrupted,
        tokens=loop.tokens,
        tokens_per_second=loop.tokens_per_second,
        seconds=loop.seconds,
        trainable_parameters=count_parameters(model).trainable,
        final_loss=loop.losses[-1].loss if loop.losses else None,
        settings=_settings(model, config, dtype),
        evaluation=evaluation,
    )
    identity = run.base.identity
    probes = _probes_unless_interrupted(model, run, loop, console)
    draft = ManifestDraft(
        task=config.task_id, base=identity, chat_format=run.chat_format, training=facts, probes=probes
    )
    card = model_card(config.name, identity, facts, loop.losses)
    adapter = run.store.publish(config.name, adapter_files(model, draft, base_name=identity.name, card=card))
    digest = adapter.manifest.digest
    say(console, f"{loop.steps:,} steps in {loop.seconds:,.0f} s, {facts.tokens_per_second:,.0f} tokens/s")
    say(console, f"published {config.name} ({digest[:12]}) to {config.store}")
    return TrainResult(adapter.manifest, run.store.path_of(digest), loop.losses, loop.interrupted)


def register(destination: Destination, result: TrainResult, config: TrainConfig, console: Console) -> None:
    """Half-trained adapters stay in the run's own store. Raises PublishFailed; the adapter is safe by then."""
    if result.interrupted:
        say(console, f"not registered at {config.publish}: the run was interrupted")
        return
    try:
        say(console, destination.register(config.name, read_adapter_directory(result.path)))
    except (TrainingError, AdapterError) as error:
        raise PublishFailed(f"{error} (the adapter is in {config.store})") from error


def _settings(model: PeftModel, config: TrainConfig, dtype: torch.dtype) -> dict[str, str | int | float | bool | None]:
    """The settings as they were used: with the length and the dtype that were worked out."""
    settings = scalars(config.model_dump(mode="json", exclude=_KEYS_OF_THIS_MACHINE | config.keys_without_meaning))
    text = config.init_text if config.starts_from_text else None
    return settings | {
        "num_virtual_tokens": virtual_tokens_of(model),
        "prompt_tuning_init_text": text,
        "dtype": dtype_name(dtype),
    }


def dtype_name(dtype: torch.dtype) -> str:
    """As settings have it."""
    return str(dtype).removeprefix("torch.")
