"""What is written: figures with targets, tables, void runs by name, all raw values, and the plot's lines."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.machine import machine_facts
from benchmarks.options import Options
from benchmarks.plot import curves, draw
from benchmarks.records import Record
from benchmarks.report import write_report
from benchmarks.results import Results, write_json
from benchmarks.samples import Sample
from benchmarks.scenarios import SCENARIOS


def _record(scenario: str, server: str, number: int, *samples: Sample, failures: tuple[str, ...] = ()) -> Record:
    return Record(scenario=scenario, server=server, round=number, ready_seconds=2.0, samples=samples, failures=failures)


def _sample(arm: str, clients: int, speed: float) -> Sample:
    values = {"tokens_per_second": speed, "ttft_p50_ms": 12.3456, "requests": 4.0}
    return Sample(arm=arm, clients=clients, values=values, raw={"ttft_ms": [12.3456, 1.0]})


@pytest.fixture
def results(options: Options) -> Results:
    records = (
        _record("base", "hotprompt", 1, _sample("base", 1, 100), _sample("base", 8, 300)),
        _record("base", "transformers", 1, _sample("base", 1, 25), _sample("base", 8, 200)),
        _record("base", "hotprompt", 2, _sample("base", 1, 120), _sample("base", 8, 340)),
        _record("base", "transformers", 2, _sample("base", 1, 25), _sample("base", 8, 200)),
        _record("turns", "hotprompt", 1, failures=("HTTP 400: too long",)),
    )
    machine = machine_facts(peers=None, installed=frozenset())
    return Results(machine=machine, options=options, records=records, left_out=("base: vllm",))


def test_the_page_tells_figures_targets_and_voids(results: Results) -> None:
    page = write_report(results, SCENARIOS)
    lines = page.splitlines()
    [one] = [line for line in lines if "1 client, against transformers" in line]
    assert one.split(" | ")[1:] == ["**4.40×** (4.00 to 4.80)", "110.0 and 25.0", "≥ 3×", "yes |"]
    [eight] = [line for line in lines if "8 clients, against transformers" in line]
    assert eight.endswith("| ≥ 3× | **no** |")
    [vllm] = [line for line in lines if "1 client, against vllm" in line]
    assert "not measured" in vllm
    assert "| hotprompt | base | 1 | 110.0 | 12 | 4 |" in lines
    assert "Void: turns, hotprompt, round 1: HTTP 400: too long" in lines
    assert "Left out: base: vllm." in lines
    assert "Every run is void." in lines
    assert results.machine.cpu in page
    assert "adapters-64" not in page, "what was not measured has no table"


def test_every_row_of_a_table_has_as_many_cells(results: Results) -> None:
    for block in write_report(results, SCENARIOS).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1


def test_the_json_holds_all_raw_values_and_no_path(results: Results, tmp_path: Path) -> None:
    named = replace(results, options=replace(results.options, base=str(tmp_path / "tiny")))
    write_json(named, tmp_path)
    text = (tmp_path / "results.json").read_text()
    content = json.loads(text)
    assert str(tmp_path) not in text
    assert content["options"]["base"] == "tiny"
    assert content["machine"]["cores"] >= 1
    assert [run["server"] for run in content["runs"]] == [record.server for record in results.records]
    assert content["runs"][0]["samples"][0]["raw"]["ttft_ms"] == [12.346, 1.0]
    assert content["runs"][4]["void"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_line_of_the_plot_is_the_median_over_rounds(results: Results) -> None:
    assert curves(results, ["base", "turns"]) == {
        "hotprompt, base": {1: 110, 8: 320},
        "transformers, base": {1: 25, 8: 200},
    }
    assert curves(results, ["turns"]) == {}


def test_a_load_in_two_scenarios_is_drawn_once(results: Results) -> None:
    more = _record("adapters-1", "hotprompt", 1, _sample("base", 1, 1), _sample("1 adapter", 1, 50))
    lines = curves(replace(results, records=(*results.records, more)), ["base", "adapters-1"])
    assert lines["hotprompt, base"] == {1: 110, 8: 320}
    assert lines["hotprompt, 1 adapter"] == {1: 50}


def test_the_plot_is_an_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="optional: the extra `bench`")
    draw({"hotprompt, base": {1: 10.0, 8: 30.0}}, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
