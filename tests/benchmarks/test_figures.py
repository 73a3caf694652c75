"""The order of turns, what is computed of the rounds, and that a void run never becomes a figure."""

import pytest

from benchmarks.figures import Cell, Figure, Target, outcome_of
from benchmarks.records import Record, in_turn
from benchmarks.samples import Sample
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import HOTPROMPT, TRANSFORMERS, VLLM

RATIO = Figure(
    name="ratio", of=Cell("a", "base", 1, "speed"), against=Cell("b", "base", 1, "speed"), by="ratio", unit="×"
)


def _record(server: str, number: int, speed: float, *, failures: tuple[str, ...] = ()) -> Record:
    sample = Sample(arm="base", clients=1, values={"speed": speed}, raw={})
    return Record(scenario="s", server=server, round=number, ready_seconds=1, samples=(sample,), failures=failures)


def test_servers_take_turns() -> None:
    order = [(number, server.label) for number, server in in_turn((HOTPROMPT, VLLM, TRANSFORMERS), 2)]
    labels = ["hotprompt", "vllm", "transformers"]
    assert order == [(1, label) for label in labels] + [(2, label) for label in labels]


def test_a_ratio_is_taken_in_each_round_and_then_the_median() -> None:
    records = [_record("a", 1, 10), _record("b", 1, 5), _record("a", 2, 90), _record("b", 2, 30)]
    records += [_record("a", 3, 8), _record("b", 3, 8)]
    outcome = outcome_of(RATIO, records)
    assert outcome.per_round == (2, 3, 1)
    assert outcome.value == 2
    assert (outcome.median_of, outcome.median_against) == (10, 8)


def test_a_value_and_a_difference() -> None:
    records = [_record("a", 1, 10), _record("b", 1, 4)]
    difference = Figure(name="d", of=RATIO.of, against=RATIO.against, by="difference")
    assert outcome_of(difference, records).value == 6
    assert outcome_of(Figure(name="v", of=RATIO.of), records).value == 10


def test_a_round_that_lacks_a_side_does_not_count() -> None:
    outcome = outcome_of(RATIO, [_record("a", 1, 10), _record("b", 1, 5), _record("a", 2, 10)])
    assert outcome.per_round == (2,)


def test_one_void_run_makes_the_figure_void() -> None:
    records = [_record("a", 1, 10), _record("b", 1, 5), _record("a", 2, 10, failures=("no",)), _record("b", 2, 5)]
    outcome = outcome_of(RATIO, records)
    assert (outcome.value, outcome.verdict) == (None, "void")
    elsewhere = [_record("a", 1, 10), _record("b", 1, 5), _record("c", 1, 1, failures=("no",))]
    assert outcome_of(RATIO, elsewhere).value == 2


@pytest.mark.parametrize(
    ("target", "verdict"),
    [(None, "no target"), (Target("≥", 2), "met"), (Target("≥", 2.1), "missed"), (Target("≤", 1.9), "missed")],
)
def test_a_target_is_met_or_missed(target: Target | None, verdict: str) -> None:
    figure = Figure(name="r", of=RATIO.of, against=RATIO.against, by="ratio", target=target)
    assert outcome_of(figure, [_record("a", 1, 10), _record("b", 1, 5)]).verdict == verdict
    assert outcome_of(figure, []).verdict == "not measured"


def test_every_figure_looks_where_its_scenario_measures() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        labels = [server.label for server in scenario.servers]
        assert len(set(labels)) == len(labels), "a label names one server of a scenario"
        for figure in scenario.figures:
            for cell in (figure.of, figure.against or figure.of):
                assert cell.server in labels, figure.name
