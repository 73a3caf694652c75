"""What holds for the packages as a whole: where they lie, that they import, and what they must not import."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapters", "client", "server", "training")


def _modules() -> list[str]:
    found = []
    for package in PACKAGES:
        paths = [str(ROOT / package)]
        found += [package, *(module.name for module in pkgutil.walk_packages(paths, prefix=f"{package}."))]
    return found


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_ours_and_not_another_of_that_name(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).parent == ROOT / name


def test_every_module_imports() -> None:
    assert len(_modules()) > 50
    for name in _modules():
        importlib.import_module(name)


def _imported_by(statement: str) -> set[str]:
    """What a fresh interpreter has imported after a statement."""
    program = f"{statement}\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "module", ["scheduler", "block_manager", "batch", "sequence", "sampling_params", "isolation", "outputs", "config"]
)
def test_scheduling_imports_no_torch(module: str) -> None:
    assert "torch" not in _imported_by(f"import server.engine.{module}")


def test_the_front_door_imports_nothing_heavy() -> None:
    imported = _imported_by("import hotprompt")
    assert not imported & {"torch", "transformers", "peft", "fastapi", "server", "training", "client", "adapters"}


def test_nothing_imports_the_front_door() -> None:
    for path in _sources(*PACKAGES):
        assert not re.search(r"^\s*(import|from) hotprompt\b", path.read_text(), re.MULTILINE), path


def test_no_pickle_is_read_where_adapters_are() -> None:
    for path in _sources("adapters", "server", "client"):
        assert not re.search(r"(?<!safetensors\.)torch\.load\(|import pickle|pickle\.load", path.read_text()), path


def _sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in (ROOT / package).rglob("*.py")]
