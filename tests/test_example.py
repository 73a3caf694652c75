"""The example adapter as it is shipped: its files belong together, and it does what its probes say."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.files import read_adapter_directory
from adapters.manifest import AdapterManifest
from adapters.weights import read_adapter
from hotprompt import app

EXAMPLE = Path(__file__).parents[1] / "examples" / "adapters" / "movie-sentiment"


def test_its_record_is_that_of_its_files_and_has_probes() -> None:
    manifest = read_adapter(EXAMPLE.name, read_adapter_directory(EXAMPLE)).manifest
    assert AdapterManifest.model_validate_json((EXAMPLE / "hotprompt.json").read_bytes()) == manifest
    assert manifest.probes is not None
    assert manifest.probes.dtype == "float32"
    assert manifest.probes.chat_format == manifest.chat_format_fingerprint
    assert len(manifest.probes.items) == 8


@pytest.mark.slow
def test_it_answers_its_probes_on_the_embedded_base() -> None:
    command = ["adapters", "verify", str(EXAMPLE), "--base", "smollm2-135m-instruct"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "8 of 8" in result.stdout
