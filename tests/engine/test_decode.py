"""Recorded decode steps, on the CPU: buckets, padding and buffers, by a recorder that is as strict as a CUDA graph."""

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from adapters.injections import SoftPrompt
from server.engine.batch import Batch, ScheduledSequence
from server.engine.cuda.buffers import DecodeBuffers
from server.engine.cuda.decode import DecodeForward, bucket_sizes
from server.engine.engine import Engine
from server.engine.kv_cache import KVCache
from server.engine.sampling_params import SamplingParams
from server.engine.sequence import Sequence
from tests.engine.accelerating import CallRecorder, accelerator_of
from tests.engine.build import engine_of, greedy, run_to_end, runner_of
from tests.engine.family_models import VOCAB_SIZE, family_model
from tests.tiny import HIDDEN_SIZE, tiny_model

NUM_REQUESTS = 33
BUCKETS_OF_40 = [1, 2, 4, 8, 16, 24, 32, 40]


def _window_model() -> PreTrainedModel:
    return family_model("mistral", sliding_window=20)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: tiny_model("llama"),
    "gpt2": lambda: tiny_model("gpt2"),
}


def _soft_prompts() -> list[SoftPrompt | None]:
    return [
        None,
        *(
            SoftPrompt(str(n), torch.randn(n, HIDDEN_SIZE, generator=torch.Generator().manual_seed(n)) / 2)
            for n in (3, 16, 40)
        ),
    ]


def _answers(engine: Engine) -> dict[int, list[int]]:
    """33 mixed requests, greedy and seeded, on the base and on three soft prompts; they end one after the other."""
    rng = random.Random(3)
    for number in range(NUM_REQUESTS):
        prompt = [rng.randrange(256) for _ in range(rng.choice((1, 7, 30, 90)))]
        length = 6 + number % 17
        params = greedy(length) if number % 3 else SamplingParams(max_tokens=length, top_p=0.9, top_k=50, seed=number)
        engine.add_request(number, prompt, params, _soft_prompts()[number % 4])
    return run_to_end(engine)


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (8, (1, 2, 4, 8)),
        (33, (1, 2, 4, 8, 16, 24, 32, 33)),
        (64, (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)),
        (4096, (1, 2, 4, *range(8, 257, 8))),
    ],
)
def test_buckets_end_with_the_most_that_run(most: int, sizes: tuple[int, ...]) -> None:
    assert bucket_sizes(most) == sizes


@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_recorded_steps_answer_as_the_eager_engine_does(model: Callable[[], PreTrainedModel], block_size: int) -> None:
    recorder = CallRecorder()
    engine = engine_of(model(), max_num_seqs=40, accelerator=accelerator_of(recorder, block_size=block_size))
    assert engine.config.block_size == block_size
    assert _answers(engine) == _answers(engine_of(model(), max_num_seqs=40))
    assert recorder.num_recorded == len(BUCKETS_OF_40)
    assert recorder.num_replayed > 15


def test_recorded_steps_with_preemption_answer_as_the_eager_engine_does() -> None:
    recorder = CallRecorder()
    engine = engine_of(tiny_model("llama"), num_blocks=52, accelerator=accelerator_of(recorder))
    assert _answers(engine) == _answers(engine_of(tiny_model("llama")))
    assert engine.stats().num_preemptions > 0
    assert recorder.num_replayed > 15


def test_recorded_steps_with_a_window_answer_as_the_eager_engine_does() -> None:
    answers = []
    for accelerator in (None, accelerator_of(CallRecorder())):
        engine = engine_of(_window_model(), max_model_len=120, num_blocks=200, accelerator=accelerator)
        for number in range(9):
            prompt = [(number * 13 + i * 7) % (VOCAB_SIZE - 1) for i in range(1 + number * 6)]
            engine.add_request(number, prompt, SamplingParams(max_tokens=12, temperature=0))
        answers.append(run_to_end(engine))
    assert answers[0] == answers[1]


def test_more_sequences_than_the_largest_bucket_and_longer_ones_than_the_tables_run_eagerly() -> None:
    buffers = _buffers(num_rows=4, num_columns=2)
    assert buffers.fits(_decoding(3, 31, 17, 0))
    assert not buffers.fits(_decoding(3, 31, 17, 0, 5))
    assert not buffers.fits(_decoding(3, 32))
    two_tokens = ScheduledSequence(_decoding(8).items[0].sequence, 7, 2)
    assert not buffers.fits(Batch((two_tokens,), ()))


def test_padding_is_a_token_of_its_own_in_the_scratch_block() -> None:
    buffers = _buffers(num_rows=4, num_columns=2)
    buffers.fill(_decoding(3, 31, 17, 2), torch.ones(4, HIDDEN_SIZE), num_rows=4)
    buffers.fill(_decoding(20), torch.full((1, HIDDEN_SIZE), 2.0), num_rows=2)
    pages = buffers.pages(2)
    assert buffers.embeddings(2)[:, 0].tolist() == [2, 0]
    assert buffers.positions(2).tolist() == [20, 0]
    assert pages.new_slots.tolist() == [1 * 16 + 4, 9 * 16]
    assert pages.query_offsets.tolist() == [0, 1, 2]
    assert pages.key_offsets.tolist() == [0, 21, 22]
    assert pages.num_keys.tolist() == [21, 1]
    assert pages.tables.tolist() == [[0, 1], [9, 9]]
    assert (pages.most_queries, pages.most_keys) == (1, 32)


def test_padding_is_written_where_no_sequence_lies() -> None:
    model = tiny_model("gpt2")  # its positions make keys even of padding
    engine = engine_of(model, num_blocks=20, max_model_len=200, accelerator=accelerator_of(CallRecorder()))
    cache = _forward(engine)._cache
    assert engine.stats().num_blocks == 19 == cache.num_blocks - 1
    _clear(cache)
    for number in range(3):
        engine.add_request(number, [1, 2, 3 + number], greedy(5))
    run_to_end(engine)
    written = [block for block in range(20) if bool((cache.keys[0][block * 16 : block * 16 + 16] != 0).any())]
    assert written == [0, 1, 2, 19]
    assert bool((cache.keys[0][19 * 16 + 1 :] == 0).all())


def test_a_model_that_the_kernel_does_not_compute_keeps_small_blocks() -> None:
    recorder = CallRecorder()
    engine = engine_of(tiny_model("bloom"), accelerator=accelerator_of(recorder, block_size=256))
    assert engine.config.block_size == 16
    assert recorder.num_recorded == 0


def test_a_model_with_some_layers_that_gather_runs_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    recorder = CallRecorder()
    answers = []
    with caplog.at_level(logging.WARNING):
        for accelerator in (None, accelerator_of(recorder)):
            engine = engine_of(
                family_model("llama4_text"), max_model_len=100, num_blocks=100, accelerator=accelerator, max_num_seqs=8
            )
            engine.add_request(0, list(range(20)), SamplingParams(max_tokens=8, temperature=0))
            answers.append(run_to_end(engine))
    assert answers[0] == answers[1]
    assert recorder.num_recorded == 0
    assert "decode steps are not recorded: layers " in caplog.text


def _raise(run: Callable[[], None]) -> Callable[[], None]:
    del run
    raise RuntimeError("operation not permitted when stream is capturing")


def _do_nothing(run: Callable[[], None]) -> Callable[[], None]:
    run()
    return lambda: None


@pytest.mark.parametrize(
    ("record", "reason"), [(_raise, "not permitted when stream is capturing"), (_do_nothing, "not computed exactly")]
)
def test_what_cannot_be_recorded_runs_eagerly_and_the_log_says_why(
    record: Callable[[Callable[[], None]], Callable[[], None]], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        engine = engine_of(tiny_model("llama"), accelerator=accelerator_of(record))
    assert not isinstance(runner_of(engine)._forward, DecodeForward)
    assert "decode steps are not recorded" in caplog.text
    assert reason in caplog.text
    assert _answers(engine) == _answers(engine_of(tiny_model("llama")))


def test_a_kernel_that_fails_the_self_check_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(query: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros_like(query)

    recorder = CallRecorder()
    accelerator = accelerator_of(recorder)
    with caplog.at_level(logging.WARNING):
        engine = engine_of(tiny_model("llama"), accelerator=type(accelerator)(wrong, recorder, accelerator.block_size))
    assert "no paged attention: models of type llama are not computed exactly" in caplog.text
    assert recorder.num_recorded == 0
    assert _answers(engine) == _answers(engine_of(tiny_model("llama")))


def _buffers(*, num_rows: int, num_columns: int) -> DecodeBuffers:
    return DecodeBuffers(
        num_rows=num_rows,
        num_columns=num_columns,
        hidden_size=HIDDEN_SIZE,
        dtype=torch.float32,
        device=torch.device("cpu"),
        block_size=16,
        scratch_block=9,
    )


def _decoding(*starts: int) -> Batch:
    """Sequences that compute the token at these positions; each has blocks 0, 1, 2, …"""
    items = []
    for number, start in enumerate(starts):
        sequence = Sequence.create(number, [1] * (start + 1), SamplingParams(max_tokens=1), cache_seed=b"")
        sequence.block_table = list(range(start // 16 + 1))
        items.append(ScheduledSequence(sequence, start, 1))
    return Batch(tuple(items), ())


def _forward(engine: Engine) -> DecodeForward:
    forward = runner_of(engine)._forward
    assert isinstance(forward, DecodeForward)
    return forward


def _clear(cache: KVCache) -> None:
    for tensor in (*cache.keys.values(), *cache.values.values()):
        tensor.zero_()
