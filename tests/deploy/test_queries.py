"""Every query of the dashboard and the alerts asks for metrics and labels that /metrics of a running server gives."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.dockerfile import ROOT
from tests.deploy.queries import needed_by
from tests.server.building import chat_body, live_server, multipart, soft_prompt_files, tiny_settings
from tests.tiny import save_tiny_base

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "hotprompt.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus adds to every metric."""
Labels = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    """The labels of each metric at /metrics, after an adapter has answered; with `up`, which Prometheus makes."""
    place = tmp_path_factory.mktemp("queries")
    settings = tiny_settings(save_tiny_base("llama", place / "base"), place / "store")
    with live_server(settings) as (running, _), httpx.Client(base_url=running.url, timeout=60) as client:
        assert client.post("/v1/adapters", data={"name": "team"}, files=multipart(soft_prompt_files(1))).is_success
        assert client.post("/v1/chat/completions", json=chat_body(model="team", max_tokens=3)).is_success
        text = client.get("/metrics").text
    labels: dict[str, set[str]] = defaultdict(set, {"up": set(OF_PROMETHEUS)})
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels[sample.name] |= OF_PROMETHEUS | set(sample.labels)
    return labels


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def _queries() -> Iterator[tuple[str, str, str]]:
    for panel in _panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for rule in _rules():
        yield rule["alert"], rule["expr"], rule["annotations"]["summary"]


def test_every_query_asks_for_what_a_server_tells(given: Labels) -> None:
    queries = list(_queries())
    assert len(queries) > 40
    wrong = [
        (title, metric, labels - given.get(metric, set()))
        for title, query, legend in queries
        for metric, labels in needed_by(query, legend).items()
        if metric not in given or not labels <= given[metric]
    ]
    assert wrong == []


def test_every_figure_that_a_server_tells_is_shown_or_left_out_on_purpose(given: Labels) -> None:
    shown = {metric for _, query, legend in _queries() for metric in needed_by(query, legend)}
    ours = {metric for metric in given if metric.startswith("hotprompt_")}
    left_out = {metric for metric in ours - shown if not metric.endswith(("_bucket", "_sum", "_count", "_created"))}
    assert left_out == {
        "hotprompt_adapter_prompt_tokens_total",
        "hotprompt_build_info",
        "hotprompt_cache_config_info",
        "hotprompt_draining",
        "hotprompt_lora_requests_info",
        "hotprompt_requests_in_flight",
    }


def test_the_dashboard_s_variables_and_places_are_whole(given: Labels) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    source, instance = dashboard["templating"]["list"]
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", instance["query"]["query"])
    assert asked is not None
    assert asked[2] in given[asked[1]]
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert [one["uid"] for one in provisioned["datasources"]] == [source["current"]["value"]]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        ("rate(a_total{x='1'}[5m])", {"a_total": {"x"}}),
        ("sum by (le) (a_bucket) / -(max_over_time(b[1m:5s]))", {"a_bucket": {"le"}, "b": set()}),
        ("topk(3, a{instance=~\"$instance\"}) > 3", {"a": {"instance"}}),
    ],
)  # fmt: skip
def test_what_a_query_needs_is_found_everywhere_in_it(query: str, needed: Labels) -> None:
    assert needed_by(query) == needed
    assert all("z" in labels for labels in needed_by(query, "{{z}}").values())


def test_what_is_no_promql_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\w"):
        needed_by("sum by (")
