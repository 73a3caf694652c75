"""A new user's first adapter: rows, a few steps, and a running server in bfloat16 that verifies and answers."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from safetensors.torch import load, save
from typer.testing import CliRunner

from adapters.files import AdapterFiles, read_adapter_directory
from hotprompt import app
from server.config import Settings
from tests.server.building import chat_body, live_server, multipart

LIBRARY_MAIL = Path(__file__).parents[1] / "examples" / "training" / "library_mail.jsonl"
ROWS = (
    ("My invoice is wrong.", "billing"),
    ("The page does not load.", "support"),
    ("I was charged twice.", "billing"),
    ("The app crashes at start.", "support"),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(
        base="smollm2-135m-instruct",
        store=tmp_path_factory.mktemp("served"),
        device="cpu",
        dtype="bfloat16",
        max_model_len=1024,
    )
    with live_server(settings) as (running, _):
        yield running.url


def _train(name: str, rows: Path, store: Path, url: str, *flags: str) -> AdapterFiles:
    command = ["train", "--data", str(rows), "--name", name, "--store", str(store), "--publish", url, *flags]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    versions = list((store / "versions").iterdir())
    assert len(versions) == 1
    return read_adapter_directory(versions[0])


def test_eight_steps_are_verified_where_they_are_registered(url: str, tmp_path: Path) -> None:
    _train("mail", LIBRARY_MAIL, tmp_path / "store", url, "--max-steps", "8")
    record = httpx.get(f"{url}/v1/adapters/mail").json()
    assert record["verification"]["state"] == "verified", record
    assert record["verification"]["engine"] == "bfloat16"


def test_four_rows_are_learnt_and_their_adapter_with_two_rows_swapped_is_refused(url: str, tmp_path: Path) -> None:
    """As docs/quickstart.md has it."""
    rows = tmp_path / "rows.jsonl"
    question = "Which team answers this?"
    lines = [json.dumps({"instruction": question, "input": text, "output": team}) for text, team in ROWS]
    rows.write_text("\n".join(lines))
    batch = ("--max-steps", "20", "--set", "per_device_train_batch_size=4")
    files = _train("router", rows, tmp_path / "store", url, *batch)
    body = chat_body("router", f"{question}\nMy invoice is wrong.", temperature=0, max_tokens=5)
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["choices"][0]["message"]["content"] == "billing"
    swapped = httpx.post(
        f"{url}/v1/adapters", data={"name": "swapped"}, files=multipart(_with_ends_swapped(files)), timeout=60
    )
    assert (swapped.status_code, swapped.json()["error"]["code"]) == (400, "adapter_mismatch")


def _with_ends_swapped(files: AdapterFiles) -> AdapterFiles:
    tensors = load(files.weights)
    rows = tensors["prompt_embeddings"]
    rows[[0, -1]] = rows[[-1, 0]]
    return AdapterFiles(config=files.config, weights=save(tensors), manifest=files.manifest)
