"""The scenarios, as a table: which servers each starts, how it measures them, and which figures come of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import first_token, intruder, registering, servers, starting, turns
from benchmarks.beside import ALONE
from benchmarks.figures import Cell, Figure, Target
from benchmarks.measure import Measure
from benchmarks.mixed_load import MixedLoad, arm_of
from benchmarks.servers import Server

_SPEED, _TTFT, _GAP_P99 = "tokens_per_second", "ttft_p50_ms", "inter_token_p99_ms"
_COMPARED_CLIENTS = (1, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is measured: servers in turn, each by the same measure; peers that are not installed are left out."""

    name: str
    summary: str
    servers: tuple[Server, ...]
    measure: Measure
    figures: tuple[Figure, ...]


def _ratio(name: str, of: Cell, against: Cell, target: Target | None) -> Figure:
    return Figure(name=name, of=of, against=against, by="ratio", unit="×", target=target)


def _between_arms(name: str, server: Server, arms: tuple[str, str], clients: int, metric: str, most: float) -> Figure:
    """The first arm's metric against the second's, on one server, which has to stay below a limit."""
    of, against = (Cell(server.label, arm, clients, metric) for arm in arms)
    return _ratio(name, of, against, Target("≤", most))


def _against_peer(peer: Server, *, target: float, targeted: Sequence[int]) -> tuple[Figure, ...]:
    return tuple(
        _ratio(
            f"tokens/s, base model, {_clients(clients)}, against {peer.label}",
            Cell(servers.HOTPROMPT.label, arm_of(0), clients, _SPEED),
            Cell(peer.label, arm_of(0), clients, _SPEED),
            Target("≥", target) if clients in targeted else None,
        )
        for clients in _COMPARED_CLIENTS
    )


def _against_own_base(server: Server, mix: int, *, target: float | None = None) -> tuple[Figure, ...]:
    return tuple(
        _ratio(
            f"tokens/s, {arm_of(mix)} mixed, {_clients(clients)}, against own base",
            Cell(server.label, arm_of(mix), clients, _SPEED),
            Cell(server.label, arm_of(0), clients, _SPEED),
            Target("≥", target) if target is not None and clients == 16 else None,
        )
        for clients in _COMPARED_CLIENTS
    )


def _lora_price(server: Server, target: Target | None) -> Figure:
    return _ratio(
        f"tokens/s of {server.label}, 8 LoRA adapters mixed, 8 clients, against own base",
        Cell(server.label, arm_of(8), 8, _SPEED),
        Cell(server.label, arm_of(0), 8, _SPEED),
        target,
    )


def _clients(number: int) -> str:
    return f"{number} client{'s' if number > 1 else ''}"


SCENARIOS = (
    Scenario(
        name="base",
        summary="the base model under closed-loop load, against the peers",
        servers=(servers.HOTPROMPT, servers.VLLM, servers.TRANSFORMERS),
        measure=MixedLoad(),
        figures=(
            *_against_peer(servers.VLLM, target=1.0, targeted=(1, 8, 16)),
            *_against_peer(servers.TRANSFORMERS, target=3.0, targeted=(1, 8, 16)),
        ),
    ),
    Scenario(
        name="adapters-1",
        summary="one adapter, against the base model of the same server",
        servers=(servers.HOTPROMPT_1,),
        measure=MixedLoad(mixes=(0, 1)),
        figures=_against_own_base(servers.HOTPROMPT_1, 1),
    ),
    Scenario(
        name="adapters-8",
        summary="8 adapters mixed, against own base and against vLLM with 8 LoRA adapters of rank 8",
        servers=(servers.HOTPROMPT_8, servers.VLLM_LORA),
        measure=MixedLoad(mixes=(0, 8)),
        figures=(
            _ratio(
                f"tokens/s, 8 adapters mixed, 8 clients, against {servers.VLLM_LORA.label} with 8 LoRA adapters",
                Cell(servers.HOTPROMPT_8.label, arm_of(8), 8, _SPEED),
                Cell(servers.VLLM_LORA.label, arm_of(8), 8, _SPEED),
                Target("≥", 3.5),
            ),
            *_against_own_base(servers.HOTPROMPT_8, 8),
        ),
    ),
    Scenario(
        name="lora",
        summary="8 LoRA adapters of rank 8 on every linear module, 8 clients, against own base and against vLLM",
        servers=(servers.HOTPROMPT_LORA, servers.VLLM_LORA_ALL),
        measure=MixedLoad(mixes=(0, 8), clients=(8,)),
        figures=(
            _lora_price(servers.HOTPROMPT_LORA, Target("≥", 0.7)),
            _lora_price(servers.VLLM_LORA_ALL, None),
            _ratio(
                f"tokens/s, 8 LoRA adapters mixed, 8 clients, against {servers.VLLM_LORA_ALL.label}",
                Cell(servers.HOTPROMPT_LORA.label, arm_of(8), 8, _SPEED),
                Cell(servers.VLLM_LORA_ALL.label, arm_of(8), 8, _SPEED),
                None,
            ),
        ),
    ),
    Scenario(
        name="adapters-64",
        summary="64 adapters mixed, against own base",
        servers=(servers.HOTPROMPT_64,),
        measure=MixedLoad(mixes=(0, 64)),
        figures=_against_own_base(servers.HOTPROMPT_64, 64, target=0.97),
    ),
    Scenario(
        name="adapters-1000",
        summary="1,000 adapters mixed, with a KV cache that has room for 100 of them, against own base",
        servers=(servers.HOTPROMPT_1000,),
        measure=MixedLoad(mixes=(0, 1_000)),
        figures=_against_own_base(servers.HOTPROMPT_1000, 1_000, target=0.85),
    ),
    Scenario(
        name="first-token",
        summary="time to the first token with an adapter of 100 virtual tokens, against the base model",
        servers=(servers.HOTPROMPT_LONG,),
        measure=first_token.FirstToken(),
        figures=(
            _between_arms(
                "TTFT with a 100-virtual-token adapter, against base",
                servers.HOTPROMPT_LONG,
                (first_token.ADAPTER, first_token.BASE),
                1,
                _TTFT,
                1.05,
            ),
        ),
    ),
    Scenario(
        name="turns",
        summary="time to the first token of the second turn after a history of 1,500 tokens, against the first turn",
        servers=(servers.HOTPROMPT,),
        measure=turns.Turns(),
        figures=(
            _between_arms(
                "TTFT of the second turn after a 1,500-token history, against the first",
                servers.HOTPROMPT,
                (turns.SECOND, turns.FIRST),
                1,
                _TTFT,
                0.2,
            ),
        ),
    ),
    Scenario(
        name="long-prompt",
        summary="inter-token times of 8 running streams while a prompt of 4,000 tokens arrives, against without",
        servers=(servers.HOTPROMPT,),
        measure=intruder.Intruder(),
        figures=(
            _between_arms(
                "inter-token p99 of 8 streams while a 4,000-token prompt arrives, against without",
                servers.HOTPROMPT,
                (intruder.BESIDE, ALONE),
                8,
                _GAP_P99,
                3.0,
            ),
        ),
    ),
    Scenario(
        name="registering",
        summary="POST of an adapter to its first token, and 8 running streams during 100 registrations",
        servers=(servers.HOTPROMPT,),
        measure=registering.Registering(),
        figures=(
            Figure(
                name="POST of an adapter to its first token, above the base's TTFT",
                of=Cell(servers.HOTPROMPT.label, registering.REGISTERED, 1, "post_to_first_token_p50_ms"),
                against=Cell(servers.HOTPROMPT.label, registering.BASE, 1, _TTFT),
                by="difference",
                unit=" ms",
                target=Target("≤", 50),
            ),
            _between_arms(
                "inter-token p99 of 8 streams during 100 registrations, against without",
                servers.HOTPROMPT,
                (registering.BESIDE, ALONE),
                8,
                _GAP_P99,
                1.5,
            ),
        ),
    ),
    Scenario(
        name="start",
        summary="start to /ready and resident memory, without adapters and with 10,000 registered",
        servers=(servers.HOTPROMPT, servers.HOTPROMPT_10000),
        measure=starting.Starting(),
        figures=(
            Figure(
                name="start to /ready",
                of=Cell(servers.HOTPROMPT.label, starting.ARM, 8, "ready_seconds"),
                unit=" s",
                target=Target("≤", 15),
            ),
            Figure(
                name="start to /ready with 10,000 adapters, above none",
                of=Cell(servers.HOTPROMPT_10000.label, starting.ARM, 8, "ready_seconds"),
                against=Cell(servers.HOTPROMPT.label, starting.ARM, 8, "ready_seconds"),
                by="difference",
                unit=" s",
                target=Target("≤", 5),
            ),
            Figure(
                name="resident memory with 10,000 adapters, 256 of them used, above none",
                of=Cell(servers.HOTPROMPT_10000.label, starting.ARM, 8, "resident_after_use_mib"),
                against=Cell(servers.HOTPROMPT.label, starting.ARM, 8, "resident_after_use_mib"),
                by="difference",
                unit=" MiB",
                target=Target("≤", 500_000_000 / (1 << 20)),
            ),
        ),
    ),
    Scenario(
        name="int8",
        summary="--quantization int8 against unquantised weights, one client",
        servers=(servers.HOTPROMPT, servers.HOTPROMPT_INT8),
        measure=MixedLoad(clients=(1,)),
        figures=(
            _ratio(
                "tokens/s with --quantization int8, 1 client, against without",
                Cell(servers.HOTPROMPT_INT8.label, arm_of(0), 1, _SPEED),
                Cell(servers.HOTPROMPT.label, arm_of(0), 1, _SPEED),
                Target("≥", 1.4),
            ),
        ),
    ),
)
"""Every scenario, in the order in which they are measured."""
