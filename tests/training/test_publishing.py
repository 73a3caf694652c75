"""Registering what was trained: in another store, with a server that replays the probes, and what goes wrong."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from adapters.store import AdapterStore, read_card
from tests.server.building import live_server, tiny_settings
from tests.tiny import Family
from tests.training.rows import tiny_config
from training.errors import PublishFailed, TrainingError
from training.run import train


def test_a_server_takes_what_was_trained_and_replays_its_probes(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = io.StringIO()
    with live_server(tiny_settings(bases["llama"], tmp_path / "served", admin_keys="secret")) as (running, _):
        config = tiny_config(bases["llama"], tmp_path, publish=running.url, license="cc0-1.0")
        result = train(config, console=Console(file=output), api_key="secret")
        with pytest.raises(PublishFailed, match=r"\(the adapter is in ") as caught:
            train(config, console=Console(file=io.StringIO()), api_key="wrong")
        assert str(caught.value).startswith(f"publish {running.url}: ")
    digest = result.manifest.digest
    assert f"registered tiny ({digest[:12]}) at {running.url}: verified" in output.getvalue()
    served = AdapterStore(tmp_path / "served")
    assert served.resolve("tiny") == ("tiny", digest)
    card = read_card(served, digest)
    assert card is not None
    assert 'license: "cc0-1.0"' in card
    assert "Licence: cc0-1.0." in card
    assert running.url not in card


def test_another_store_takes_it_too(tmp_path: Path, bases: dict[Family, Path]) -> None:
    config = tiny_config(bases["llama"], tmp_path, publish=str(tmp_path / "shared"))
    result = train(config, console=Console(file=io.StringIO()))
    assert AdapterStore(tmp_path / "shared").resolve("tiny") == ("tiny", result.manifest.digest)
    assert AdapterStore(tmp_path / "store").resolve("tiny") == ("tiny", result.manifest.digest)


def test_a_server_that_does_not_answer_is_told_before_training(tmp_path: Path, bases: dict[Family, Path]) -> None:
    config = tiny_config(bases["llama"], tmp_path, publish="http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"^publish http://127\.0\.0\.1:9: no answer"):
        train(config, console=Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()
