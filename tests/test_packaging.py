"""What holds for the packages as a whole: where they lie, that they import, and what they must not import."""

import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapters", "benchmarks", "client", "server", "training")
OF_CUDA = {"server.engine.cuda.low_rank_triton"}
"""Import what CUDA builds of torch bring with them."""


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
    left_out = OF_CUDA if importlib.util.find_spec("triton") is None else set()
    for name in set(_modules()) - left_out:
        importlib.import_module(name)


def _imported_by(statement: str) -> set[str]:
    """What a fresh interpreter has imported after a statement."""
    return set(_written_by(f"{statement}\nimport sys\nsys.stdout.write(' '.join(sys.modules))", os.environ).split())


def _written_by(program: str, environment: Mapping[str, str]) -> str:
    """What a fresh interpreter writes to stdout."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout


@pytest.mark.parametrize(
    "module", ["scheduler", "block_manager", "batch", "sequence", "sampling_params", "isolation", "outputs", "config"]
)
def test_scheduling_imports_no_torch(module: str) -> None:
    assert "torch" not in _imported_by(f"import server.engine.{module}")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve"],
        ["train"],
        ["evaluate"],
        ["adapters"],
        ["adapters", "list"],
        ["chat"],
        ["bench"],
        ["bench", "serve"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    statement = f"""import contextlib, io, hotprompt
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    hotprompt.app({[*arguments, "--help"]!r})"""
    heavy = {"torch", "transformers", "peft", "fastapi", "httpx", "matplotlib", "nltk", "sacrebleu"}
    heavy |= {"server", "training", "adapters"}
    assert not _imported_by(statement) & heavy


@pytest.mark.parametrize(("given", "expected"), [({}, "1000 False"), ({"GOMP_SPINCOUNT": "7"}, "7 False")])
def test_openmp_is_told_not_to_spin_before_torch_is_there(given: dict[str, str], expected: str) -> None:
    program = """import os, sys, hotprompt
hotprompt.app = lambda: sys.stdout.write(os.environ['GOMP_SPINCOUNT'] + ' ' + str('torch' in sys.modules))
hotprompt.main()"""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    assert _written_by(program, environment | given) == expected


@pytest.mark.parametrize("module", ["errors", "naming", "home", "tensor_file", "durable_files", "records"])
def test_names_and_records_import_no_torch(module: str) -> None:
    assert "torch" not in _imported_by(f"import adapters.{module}")


def test_a_wheel_has_every_file_of_the_page_and_the_licences_of_what_is_not_ours(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    [wheel] = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("server/page/static/")}
    static = ROOT / "server" / "page" / "static"
    assert packed == {path.relative_to(ROOT).as_posix() for path in static.rglob("*") if path.is_file()}
    assert {f"server/page/static/vendor/{name}/LICENSE" for name in ("dompurify", "marked")} <= packed


def test_nothing_imports_the_front_door() -> None:
    for path in _sources(*PACKAGES):
        assert not re.search(r"^\s*(import|from) hotprompt\b", path.read_text(), re.MULTILINE), path


def test_no_pickle_is_read_where_adapters_are() -> None:
    for path in _sources("adapters", "server", "client"):
        assert not re.search(r"(?<!safetensors\.)torch\.load\(|import pickle|pickle\.load", path.read_text()), path


def test_the_lock_holds_every_dependency_in_an_allowed_version() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["train"], *extras["dev"]]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), line
    assert not any("+" in version for version in pins.values()), "a local version is only in one index"


def _sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in (ROOT / package).rglob("*.py")]
