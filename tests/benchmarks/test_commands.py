"""`hotprompt bench serve`: wrong usage by flag, the list, and one whole measurement of a server in its own process."""

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.options import installed_peers
from benchmarks.scenarios import SCENARIOS
from hotprompt import app

ROOT = Path(__file__).parents[2]


def _bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", "serve", *map(str, arguments)])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--scenario", "no-such"),
        ("--clients", "0"),
        ("--clients", "1,,4"),
        ("--clients", "four"),
        ("--requests", "0"),
        ("--tokens", "1"),
        ("--rounds", "-1"),
        ("--rounds", "1.5"),
        ("--dtype", "int3"),
        ("--peers", "/nowhere"),
        ("--out", __file__),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_flag(flag: str, value: str) -> None:
    result = _bench(flag, value)
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(f"hotprompt: {flag} ")


def test_all_mistakes_are_told_at_once() -> None:
    result = _bench("--rounds", "x", "--tokens", "y")
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["--tokens", "--rounds"]


def test_results_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "results.json").touch()
    result = _bench("--out", tmp_path)
    assert result.exit_code == 2
    assert "holds results already" in result.stderr


def test_an_unknown_base_is_one_line(tmp_path: Path) -> None:
    result = _bench("--base", tmp_path / "none", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "--base" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_list_names_every_scenario() -> None:
    result = _bench("--list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [scenario.name for scenario in SCENARIOS]


def test_peers_are_what_has_a_virtual_environment(tmp_path: Path) -> None:
    assert installed_peers(None) == frozenset()
    (tmp_path / "vllm" / "bin").mkdir(parents=True)
    assert installed_peers(tmp_path) == frozenset()
    (tmp_path / "vllm" / "bin" / "vllm").touch()
    assert installed_peers(tmp_path) == {"vllm"}


@pytest.mark.slow
def test_a_measurement_from_the_start_of_a_server_to_the_files(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`adapters-1` is measured; `turns` is void, since its long history does not fit into the tiny context."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    load = ["--clients", "1,2", "--requests", 2, "--tokens", 4, "--rounds", 1, "--dtype", "float32"]
    chosen = ["--scenario", "adapters-1", "--scenario", "turns", "--base", tiny_base, "--out", tmp_path / "out"]
    result = _bench(*chosen, *load)
    assert result.exit_code == 1
    assert "1 of 2 runs are void" in result.stderr
    assert "matplotlib is not installed" in result.stderr
    assert "results are in" in result.stdout
    good, void = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert (good["scenario"], good["void"], void["scenario"], void["void"]) == ("adapters-1", False, "turns", True)
    assert "context" in void["failures"][0]
    arms = [(sample["arm"], sample["clients"]) for sample in good["samples"]]
    assert arms == [("base", 1), ("1 adapter", 1), ("base", 2), ("1 adapter", 2)]
    assert good["ready_seconds"] > 0
    page = (tmp_path / "out" / "results.md").read_text()
    assert "| hotprompt | 1 adapter | 2 |" in page
    assert sorted(path.name for path in (tmp_path / "out" / "logs").iterdir()) == [
        "adapters-1-hotprompt-1.log",
        "turns-hotprompt-1.log",
    ]
