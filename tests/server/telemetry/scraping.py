"""Reads a page of metrics for the tests."""

from dataclasses import dataclass

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

LEDGER_ENDS = (
    "hotprompt_requests_finished_total",
    "hotprompt_requests_failed_total",
    "hotprompt_requests_cancelled_total",
)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One page."""

    families: tuple[Metric, ...]

    @property
    def types(self) -> dict[str, str]:
        return {family.name: family.type for family in self.families}

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name with these labels, or 0 where there is none."""
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(found) <= 1, found
        return found[0] if found else 0.0

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of all samples of that name."""
        return [dict(sample.labels) for family in self.families for sample in family.samples if sample.name == name]

    def check_ledger(self) -> None:
        """What was accepted has ended in one of three ways, or runs."""
        ended = sum(map(self.value, LEDGER_ENDS))
        assert self.value("hotprompt_requests_accepted_total") == ended + self.value("hotprompt_requests_in_flight")


async def scrape(client: httpx.AsyncClient, **headers: str) -> Scrape:
    response = await client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    return Scrape(tuple(text_string_to_metric_families(response.text)))
