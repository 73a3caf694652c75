"""GET /metrics: what adapters are used for, in Prometheus's text form. Counts nothing itself."""

from collections.abc import Iterable

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from server.api.deps import CallerDep, PartsDep, require_chat_key
from server.api.guarded_route import GuardedRoute
from server.keys import Caller
from server.text.adapter_use import OTHER, UseCounts

router = APIRouter(route_class=GuardedRoute)

MEDIA_TYPE = "text/plain; version=0.0.4"


@router.get("/metrics", dependencies=[Depends(require_chat_key)], response_class=PlainTextResponse)
def metrics(parts: PartsDep, caller: CallerDep) -> Response:
    """Counters of the adapters that this key may use; those of all others are told to a key for all models."""
    registry = CollectorRegistry()
    registry.register(_AdapterCounters(_visible(parts.use.by_label(), caller)))
    return Response(generate_latest(registry), media_type=MEDIA_TYPE)


class _AdapterCounters(Collector):
    """The counts of one moment."""

    def __init__(self, by_label: dict[str, UseCounts]) -> None:
        self._by_label = by_label

    def collect(self) -> Iterable[CounterMetricFamily]:
        requests = _family("requests", "Requests answered with an adapter, or being answered.")
        prompts = _family("prompt_tokens", "Tokens of their prompts, virtual ones not among them.")
        generated = _family("generated_tokens", "Tokens of their answers.")
        for label, counts in self._by_label.items():
            requests.add_metric([label], counts.requests)
            prompts.add_metric([label], counts.prompt_tokens)
            generated.add_metric([label], counts.generated_tokens)
        return requests, prompts, generated


def _family(what: str, help_text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"hotprompt_adapter_{what}", help_text, labels=["adapter"])


def _visible(by_label: dict[str, UseCounts], caller: Caller) -> dict[str, UseCounts]:
    if caller.models is None:
        return by_label
    return {label: counts for label, counts in by_label.items() if label != OTHER and caller.may_use(label)}
