"""Gives the example adapter its probes, as `hotprompt train` makes them today: `python -m examples.example_probes`.

It was trained before the trainer made any. Its tensors stay as they are; probes are part of what a version is, so its
digest changes.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel

from adapters.base_model import BaseModel, load_weights, open_base_model
from adapters.chat_format import default_chat_format
from adapters.embedded_base import EMBEDDED_BASE_NAME
from adapters.files import AdapterFiles, read_adapter_directory
from adapters.home import home_directory
from adapters.manifest import ManifestDraft, parse_manifest_draft
from adapters.probes import Probes
from adapters.weights import read_adapter
from examples.movie_reviews import fetch_reviews, split, write_rows
from training.conversation import rows_digest
from training.data import read_rows
from training.examples import encode_rows
from training.model_format import LocalFormat
from training.probes import make_probes

EXAMPLE = Path(__file__).parent / "adapters" / "movie-sentiment"
HELD_OUT = 300
MAX_LENGTH = 512


def main() -> None:
    """Rewrite the example's hotprompt.json with probes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, default=EXAMPLE)
    parser.add_argument("--work", type=Path, default=home_directory() / "demo", help="directory for the reviews")
    arguments = parser.parse_args()
    train_reviews, _ = split(fetch_reviews(arguments.work / "data"), held_out=HELD_OUT)
    data = write_rows(train_reviews, arguments.work / "data" / "train.jsonl")
    base = open_base_model(EMBEDDED_BASE_NAME, home=home_directory())
    files = read_adapter_directory(arguments.adapter)
    probed = with_probes(files, probes_of(arguments.adapter, files, base, data))
    manifest = read_adapter(arguments.adapter.resolve().name, probed).manifest
    (arguments.adapter / "hotprompt.json").write_bytes(manifest.to_json())


def probes_of(directory: Path, files: AdapterFiles, base: BaseModel, data: Path) -> Probes:
    """Eight probes from the rows that an adapter was trained on, in float32 on the CPU."""
    draft = _draft(files)
    rows = read_rows(data)
    assert draft.training is None or draft.training.data_digest == rows_digest(rows), "these are not the rows it learnt"
    chat_format = draft.chat_format or default_chat_format(base.tokenizer)
    encoded = encode_rows(rows, LocalFormat(base.tokenizer, chat_format), max_length=MAX_LENGTH)
    weights = load_weights(base.path, dtype=torch.float32, device=torch.device("cpu"))
    with TemporaryDirectory(prefix="hotprompt-probes-") as scratch:
        for name, content in files.by_name().items():
            (Path(scratch) / name).write_bytes(content)
        model = PeftModel.from_pretrained(weights, scratch)
    probes = make_probes(model, base.tokenizer, chat_format, encoded.answered)
    assert probes is not None, f"{directory}: no row fits the base model"
    return probes


def with_probes(files: AdapterFiles, probes: Probes) -> AdapterFiles:
    """The same adapter with these probes."""
    draft = _draft(files).model_copy(update={"probes": probes})
    return replace(files, manifest=draft.canonical_json())


def _draft(files: AdapterFiles) -> ManifestDraft:
    return parse_manifest_draft(files.manifest or b"{}")


if __name__ == "__main__":
    main()
