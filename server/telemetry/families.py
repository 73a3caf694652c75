"""A snapshot as Prometheus's metric families: their names, types, labels and meanings. Reads nothing by itself.

Names and meanings are vLLM's where it has them, with `hotprompt_` before; docs/operations.md lists all.
"""

import platform
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from server.telemetry.http_counts import Answered
from server.telemetry.snapshot import Snapshot
from server.text.adapter_use import UseCounts
from server.text.histogram import HistogramCounts

_PREFIX = "hotprompt_"


def families_of(now: Snapshot) -> Iterator[Metric]:
    """All families of one scrape."""
    yield from _load(now)
    yield from _about(now)
    yield from _requests(now)
    yield from _times(now)
    yield from _adapters(now)
    yield _http(now.http)


def _load(now: Snapshot) -> Iterator[Metric]:
    engine = now.engine
    used = 1 - engine.num_free_blocks / engine.num_blocks
    yield _gauge("num_requests_running", "Sequences in the batch.", engine.num_running)
    yield _gauge("num_requests_waiting", "Sequences that wait for a place in the batch.", engine.num_waiting)
    yield _gauge("kv_cache_usage_perc", "Share of the KV cache that is held, 1 for all of it.", used)
    yield _gauge(
        "kv_cache_pinned_perc",
        "Share of the KV cache that pinned adapters hold.",
        engine.num_pinned_blocks / engine.num_blocks,
    )
    yield _counter("num_preemptions", "Sequences that gave their blocks back and waited again.", engine.num_preemptions)
    yield _counter(
        "prefix_cache_queries", "Tokens of prompts that the prefix cache was asked for.", engine.num_prefix_tokens_asked
    )
    yield _counter("prefix_cache_hits", "Of these, tokens that it had.", engine.num_prefix_tokens_found)
    yield _counter(
        "virtual_tokens_computed",
        "Virtual tokens of adapters whose KV had to be computed or written.",
        engine.num_virtual_tokens_computed,
    )


def _about(now: Snapshot) -> Iterator[Metric]:
    yield _gauge("engine_up", "1 while the engine's thread lives.", int(now.is_engine_alive))
    yield _gauge(
        "engine_step_seconds", "Seconds since the step that runs now began, 0 between steps.", now.seconds_in_step
    )
    yield _counter("engine_restarts", "Times that the engine was started anew after a fault.", now.num_restarts)
    yield _gauge("draining", "1 while the server stops and takes no new requests.", int(now.is_draining))
    yield _info(
        "lora_requests_info",
        "Adapters that sequences run with and wait for; the value is the time of the scrape.",
        {
            "max_lora": str(now.max_num_seqs),
            "running_lora_adapters": ",".join(now.running),
            "waiting_lora_adapters": ",".join(now.waiting),
        },
        value=now.at,
    )
    yield _info(
        "cache_config_info",
        "The KV cache's blocks.",
        {"block_size": str(now.engine.block_size), "num_gpu_blocks": str(now.engine.num_blocks)},
    )
    yield _info("build_info", "What is running.", _build())


def _requests(now: Snapshot) -> Iterator[Metric]:
    serving = now.serving
    yield _counter("requests_accepted", "Requests that were handed to the engine.", serving.num_accepted)
    yield _counter("requests_finished", "Requests that were answered whole.", serving.num_finished)
    yield _counter("requests_failed", "Requests that ended with an error.", serving.num_failed)
    yield _counter("requests_cancelled", "Requests whose client hung up.", serving.num_cancelled)
    yield _gauge("requests_in_flight", "Accepted requests that have not ended.", serving.num_in_flight)
    yield _counter("prompt_tokens", "Tokens of prompts, virtual ones in no count.", serving.prompt_tokens)
    yield _counter("generation_tokens", "Tokens of answers.", serving.generated_tokens)
    choices = CounterMetricFamily(f"{_PREFIX}request_success", "Answers that have ended.", labels=["finished_reason"])
    for reason, count in serving.choices.items():
        choices.add_metric([reason], count)
    yield choices


def _times(now: Snapshot) -> Iterator[Metric]:
    serving = now.serving
    yield _histogram("time_to_first_token", "From a request's arrival to its first token.", serving.first_token)
    yield _histogram("inter_token_latency", "From one token to the next.", serving.between_tokens)
    yield _histogram("e2e_request_latency", "From a request's arrival to the end of its answer.", serving.request)
    yield _histogram("request_queue_time", "From asking the engine to a place in the batch.", serving.queue)


def _adapters(now: Snapshot) -> Iterator[Metric]:
    resident = now.residency
    yield _gauge("resident_adapters", "Adapters in memory.", resident.num_adapters)
    yield _gauge("resident_adapter_bytes", "What they take.", resident.num_bytes)
    yield _gauge("resident_adapter_limit_bytes", "What they may take (--adapter-memory).", resident.budget_bytes)
    yield _counter("adapter_loads", "Adapters that were read from the store into memory.", resident.num_loads)
    yield _counter("adapter_evictions", "Adapters that left memory for others.", resident.num_evictions)
    yield from _use(now.adapters)


def _use(by_label: Mapping[str, UseCounts]) -> Iterator[Metric]:
    requests = _by_adapter("requests", "Requests answered with an adapter, or being answered.")
    prompts = _by_adapter("prompt_tokens", "Tokens of their prompts, virtual ones not among them.")
    generated = _by_adapter("generated_tokens", "Tokens of their answers.")
    for label, counts in by_label.items():
        requests.add_metric([label], counts.requests)
        prompts.add_metric([label], counts.prompt_tokens)
        generated.add_metric([label], counts.generated_tokens)
    yield from (requests, prompts, generated)


def _http(counts: Mapping[Answered, int]) -> Metric:
    family = CounterMetricFamily(
        f"{_PREFIX}http_requests", "Answered HTTP requests.", labels=["method", "route", "status"]
    )
    for answered, count in counts.items():
        family.add_metric([answered.method, answered.route, answered.status], count)
    return family


def _by_adapter(what: str, meaning: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_PREFIX}adapter_{what}", meaning, labels=["adapter"])


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, meaning, value=value)


def _info(name: str, meaning: str, labels: Mapping[str, str], *, value: float = 1) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, meaning, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _histogram(name: str, meaning: str, histogram: HistogramCounts) -> Metric:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(f"{_PREFIX}{name}_seconds", meaning, buckets=buckets, sum_value=histogram.total)


@cache
def _build() -> Mapping[str, str]:
    return {"version": version("hotprompt"), "python_version": platform.python_version()}
