"""The Dockerfile: linted, pinned, and with the steps that `make container-check` runs. Builds nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.dockerfile import ROOT, context_paths, read_dockerfile

DIGEST = re.compile(r"\S+:\d+\.\d+\.\d+\S*@sha256:[0-9a-f]{64}")


def test_the_dockerfile_has_no_findings() -> None:
    run = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_base_image_is_pinned_by_version_and_digest() -> None:
    stages = [instruction.rest.partition(" AS ") for instruction in read_dockerfile() if instruction.word == "FROM"]
    own = {name for _, _, name in stages}
    pinned = [base for base, _, _ in stages if base not in own and "${VARIANT}" not in base]
    assert [bool(DIGEST.fullmatch(base)) for base in pinned] == [True], pinned
    assert {"runtime-cpu", "runtime-cuda"} <= own


def test_it_runs_as_a_user_who_may_write_to_volumes_alone() -> None:
    runtime = [instruction for instruction in read_dockerfile() if instruction.stage == "runtime"]
    by_word = {instruction.word: instruction for instruction in runtime}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", by_word["USER"].rest)
    places = by_word["ENV"].variables
    volumes = by_word["VOLUME"].command
    assert places["HOTPROMPT_STORE"] in volumes
    assert f"{places['HOTPROMPT_HOME']}/models" in volumes
    assert places["HF_HOME"].startswith(tuple(f"{volume}/" for volume in volumes))
    assert by_word["ENTRYPOINT"].command == ["hotprompt-start"]
    assert by_word["HEALTHCHECK"].command[0] == "python"


def test_no_key_and_no_index_is_written_into_the_image() -> None:
    for instruction in read_dockerfile():
        assert not re.search(r"KEYS?=|https?://(?!127\.0\.0\.1)", instruction.rest), instruction


@pytest.mark.parametrize("name", context_paths())
def test_what_the_builder_gets_is_there(name: str) -> None:
    assert (ROOT / name).exists() or name.endswith("*")


def test_the_builder_gets_nothing_but_the_program() -> None:
    assert not {".git", "tests", "docs", ".venv", "deploy"} & set(context_paths())
