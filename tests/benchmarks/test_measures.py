"""Each measure against a live tiny server: the arms and metrics that the scenarios' figures are computed from."""

from dataclasses import replace

import pytest

from benchmarks import first_token, intruder, registering, starting, turns
from benchmarks.beside import ALONE
from benchmarks.errors import RequestFailed
from benchmarks.mixed_load import MixedLoad
from benchmarks.random_adapters import SoftPromptMaker
from benchmarks.session import Session


async def test_mixed_load_measures_each_mix_at_each_number_of_clients(session: Session) -> None:
    samples = await MixedLoad(mixes=(0, 1, 3))(session)
    arms = [("base", 1), ("1 adapter", 1), ("3 adapters", 1), ("base", 2), ("1 adapter", 2), ("3 adapters", 2)]
    assert [(sample.arm, sample.clients) for sample in samples] == arms
    assert [sample.values["requests"] for sample in samples] == [4, 4, 4, 8, 8, 8]
    assert all(sample.values["tokens_per_second"] > 0 and not sample.is_void for sample in samples)
    [alone] = await MixedLoad(clients=(3,))(session)
    assert alone.clients == 3


async def test_first_token_takes_turns_between_base_and_adapter(session: Session) -> None:
    base, adapter = await first_token.FirstToken()(session)
    assert (base.arm, adapter.arm) == (first_token.BASE, first_token.ADAPTER)
    assert base.values["requests"] == adapter.values["requests"] == 4
    assert base.values["ttft_p50_ms"] > 0
    assert adapter.values["ttft_p50_ms"] > 0


async def test_the_second_turn_finds_the_first_in_the_cache(session: Session) -> None:
    first, second = await turns.Turns(history_tokens=600, conversations=3)(session)
    assert first.values["requests"] == second.values["requests"] == 3
    assert first.values["cached_tokens"] < 100
    assert second.values["cached_tokens"] > 3 * 500


async def test_a_long_prompt_arrives_beside_streams(session: Session) -> None:
    alone, beside = await intruder.Intruder(prompt_tokens=600, streams=3, stream_tokens=60, prompts=2)(session)
    assert (alone.arm, beside.arm) == (ALONE, intruder.BESIDE)
    assert not alone.is_void
    assert beside.values["gaps"] >= 3
    assert beside.values["inter_token_p99_ms"] > 0
    assert alone.values["inter_token_p99_ms"] > 0


async def test_adapters_are_registered_and_asked_and_streams_run_beside(session: Session) -> None:
    base, registered, alone, beside = await registering.Registering(
        registrations=3, batch=2, streams=2, stream_tokens=60
    )(session)
    assert base.values["requests"] == registered.values["requests"] == 4
    assert registered.values["post_to_first_token_p50_ms"] > registered.values["ttft_p50_ms"]
    assert alone.values["gaps"] > 0
    assert beside.values["gaps"] > 0


async def test_a_registration_that_is_refused_is_a_failure(session: Session) -> None:
    with pytest.raises(RequestFailed, match="POST of new-1-0: HTTP 400"):
        await registering.Registering()(replace(session, maker=SoftPromptMaker(hidden_size=8, virtual_tokens=2)))


async def test_starting_tells_time_and_memory(session: Session) -> None:
    [sample] = await starting.Starting(requests=6)(session)
    assert sample.values["ready_seconds"] == 1.5
    assert sample.values["resident_mib"] > 10
    assert sample.values["resident_after_use_mib"] > 10
    assert sample.values["requests"] == 6
    [bare] = await starting.Starting(requests=2)(replace(session, adapters=()))
    assert not bare.is_void
