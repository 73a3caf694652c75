"""The load generator against a live server: exact counts, times in order, and failures that are told."""

import asyncio
import time
from dataclasses import replace

import httpx
import pytest

from benchmarks.errors import RequestFailed
from benchmarks.load import Ask, Target, new_client, run_closed_loop, send
from benchmarks.samples import sample_of_load
from benchmarks.session import Session
from benchmarks.streams import running_streams


async def test_an_answer_has_exactly_the_tokens_asked_for_and_its_times_are_in_order(session: Session) -> None:
    answer = await send(session.client, session.target, session.ask("one", "x", tokens=9))
    assert answer.usage.completion_tokens == 9
    stamps = [answer.started, *(piece.at for piece in answer.pieces), answer.ended]
    assert stamps == sorted(stamps)
    assert answer.ttft > 0
    assert sum(answer.gaps) <= answer.seconds - answer.ttft
    assert len(answer.gaps) == max(0, len(answer.pieces) - 1)


async def test_a_closed_loop_sends_everything_once(session: Session) -> None:
    asks = session.asks(session.adapters, 7, "all")
    load = await run_closed_loop(session.client, session.target, asks, clients=3)
    assert load.failures == ()
    assert sorted(answer.ask.messages[0]["content"] for answer in load.answers) == sorted(
        ask.messages[0]["content"] for ask in asks
    )
    sample = sample_of_load("mixed", 3, load)
    assert sample.values["completion_tokens"] == 7 * session.options.tokens
    assert sample.values["tokens_per_second"] == pytest.approx(7 * session.options.tokens / load.seconds)
    assert not sample.is_void


async def test_no_more_run_at_once_than_there_are_clients(session: Session) -> None:
    asks = session.asks((session.base_model,), 8, "bounded")
    load = await run_closed_loop(session.client, session.target, asks, clients=2)
    for moment in [answer.started for answer in load.answers]:
        assert sum(answer.started <= moment < answer.ended for answer in load.answers) <= 2


async def test_a_request_that_fails_makes_the_run_void(session: Session) -> None:
    asks = [session.ask(model, model) for model in ("one", "nobody", "two")]
    load = await run_closed_loop(session.client, session.target, asks, clients=1)
    assert len(load.answers) == 2
    [failure] = load.failures
    assert "nobody" in failure
    assert "404" in failure
    assert sample_of_load("mixed", 1, load).is_void


async def test_a_load_without_one_answer_is_void_and_has_no_percentiles(session: Session) -> None:
    load = await run_closed_loop(session.client, session.target, [session.ask("nobody", "x")], clients=1)
    sample = sample_of_load("mixed", 1, load)
    assert sample.is_void
    assert "ttft_p50_ms" not in sample.values


async def test_nobody_there_is_a_failure() -> None:
    async with new_client() as client:
        with pytest.raises(RequestFailed, match="Connect"):
            await send(client, Target("http://127.0.0.1:9", lambda _: {}), Ask("m", (), 1))


_USAGE = '{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
_TEXT = '{"choices": [{"delta": {"content": "a"}}]}'


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([_TEXT, "[DONE]"], "without usage"),
        ([_TEXT, _USAGE, "[DONE]"], "2 tokens came where 3 were asked for"),
        ([_TEXT, '{"error": {"message": "no"}}'], "broke off"),
        (["{"], "not JSON"),
        (["[]"], "broke off"),
    ],
)
async def test_what_is_not_a_whole_answer_is_a_failure(events: list[str], told: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="".join(f"data: {event}\n\n" for event in events))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(RequestFailed, match=told):
            await send(client, Target("http://test", lambda _: {}), Ask("m", (), 3))


async def test_streams_run_on_and_tell_their_waits(session: Session) -> None:
    async with running_streams(
        session.client, session.target, lambda each: session.ask("one", each, tokens=40), number=3
    ) as streams:
        started = time.perf_counter()
        await asyncio.sleep(0.2)
        ended = time.perf_counter()
        await streams.wait_beyond(ended)
        gaps = streams.gaps_between(started, ended)
        assert streams.failures == []
    assert gaps
    assert all(gap > 0 for gap in gaps)
    assert streams.gaps_between(ended + 100, ended + 101) == []


async def test_a_wait_that_outlasts_the_window_counts_whole(session: Session) -> None:
    async with running_streams(
        session.client, session.target, lambda each: session.ask("one", each, tokens=40), number=1
    ) as streams:
        moment = time.perf_counter()
        await streams.wait_beyond(moment)
        around = streams.gaps_between(moment, moment)
    assert len(around) <= 1


async def test_streams_that_fail_say_so(session: Session) -> None:
    async with running_streams(
        session.client, session.target, lambda each: session.ask("nobody", each), number=2
    ) as streams:
        await asyncio.sleep(0)
    assert streams.failures
    assert "nobody" in streams.failures[0]


def test_purposes_and_rounds_have_their_own_prompts(session: Session) -> None:
    texts = {session.ask("one", purpose).messages[0]["content"] for purpose in range(50)}
    assert len(texts) == 50
    assert replace(session, round=2).ask("one", 0).messages[0]["content"] not in texts
    assert session.ask("two", 0).messages[0]["content"] in texts
