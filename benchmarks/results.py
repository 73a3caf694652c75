"""Results: everything that a measurement gave, and its form as JSON. Computes no figure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from benchmarks.machine import Machine
from benchmarks.options import RESULTS_FILE, Options
from benchmarks.records import Record
from benchmarks.samples import Sample

_DECIMALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The machine, the options, every run so far in the order in which they were made, and what was left out."""

    machine: Machine
    options: Options
    records: tuple[Record, ...]
    left_out: tuple[str, ...] = ()


def write_json(results: Results, directory: Path) -> None:
    """Write results.json: all raw values, a run to a line. An older file is replaced whole, or stays."""
    head = {"machine": asdict(results.machine), "options": _options(results.options), "left_out": results.left_out}
    runs = b",\n".join(orjson.dumps(_record(record)) for record in results.records)
    content = orjson.dumps(head)[:-1] + b',"runs":[\n' + runs + b"\n]}\n"
    staging = directory / f"{RESULTS_FILE}.partial"
    staging.write_bytes(content)
    staging.replace(directory / RESULTS_FILE)


def _options(options: Options) -> dict[str, object]:
    """Options without paths of the machine; of the base model, the name alone."""
    fields = asdict(options)
    del fields["out"], fields["peers"]
    return fields | {"base": Path(options.base).name}


def _record(record: Record) -> dict[str, object]:
    return {
        "scenario": record.scenario,
        "server": record.server,
        "round": record.round,
        "void": record.is_void,
        "failures": record.failures,
        "ready_seconds": record.ready_seconds,
        "samples": [_sample(sample) for sample in record.samples],
    }


def _sample(sample: Sample) -> dict[str, object]:
    return {
        "arm": sample.arm,
        "clients": sample.clients,
        "values": {name: round(value, _DECIMALS) for name, value in sample.values.items()},
        "failures": sample.failures,
        "raw": {name: _rounded(values) for name, values in sample.raw.items()},
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, _DECIMALS) for value in values]
