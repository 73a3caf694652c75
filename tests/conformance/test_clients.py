"""Each client program, on a running server with the embedded base model, proves all that its source says."""

import subprocess
from pathlib import Path

import pytest

from tests.conformance.conftest import Proofs
from tests.conformance.programs import (
    HERE,
    NODE_MODULES,
    PROGRAMS,
    PYTHON,
    PYTHON_OF_INSTRUCTOR,
    ROOT,
    Program,
    ServerName,
)
from tests.conformance.serving import environment

LIMIT_SECONDS = 240


def test_every_program_is_run() -> None:
    there = {path for path in (HERE / "clients").glob("*.py") if "def main(" in path.read_text()}
    there |= {path for path in (HERE / "node").glob("*.mjs") if path.stem != "proving"}
    assert {program.source for program in PROGRAMS} == there


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_proves_something_once(program: Program) -> None:
    assert program.features
    assert len(set(program.features)) == len(program.features)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "model"),
    [(program, model) for program in PROGRAMS for model in program.models],
    ids=lambda value: value.name if isinstance(value, Program) else value,
)
def test_client(program: Program, model: str, servers: dict[ServerName, str], proofs: Proofs) -> None:
    _look_for_the_clients()
    run = subprocess.run(
        program.command(servers[program.server], model),
        cwd=ROOT,
        env=dict(environment()),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(run.stdout.splitlines()) == sorted(program.features)
    proofs.setdefault(program.name, {})[model] = program.features


def _look_for_the_clients() -> None:
    for there in (PYTHON, PYTHON_OF_INSTRUCTOR, NODE_MODULES):
        assert Path(there).exists(), f"{there} is not there: `make clients` prepares it"
