"""The log: a line for each request and record, whatever is in it; no key, and no prompt unless it is asked for."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from server.config import Settings
from server.telemetry.log_lines import MAX_MESSAGE_CHARS, JsonLines, TextLines
from tests.server.building import Running, app_client, chat_body, multipart, soft_prompt_files
from tests.server.conftest import Served

HOSTILE = (
    "two\nlines",
    "\r\n2026-11-24 22:00:00,000 CRITICAL root: forged",
    "\x1b[2J\x00\x07\x7f\x9b",
    "\u2028\u2029\u202e\u061c",
    "\ud800 half",
    'quotes " and = and \\',
    "名" * 3,
)


def record_of(message: str, **fields: Any) -> logging.LogRecord:
    record = logging.LogRecord("server.test", logging.INFO, __file__, 1, "%s", (message,), None)
    record.fields = fields
    return record


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_line(text: str) -> None:
    record = record_of(text, model=text, prompts=[text])
    line = TextLines().format(record)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    line = JsonLines().format(record)
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert set(told) == {"time", "level", "logger", "message", "model", "prompts"}
    told_again = text.encode("utf-8", errors="replace").decode()
    assert (told["message"], told["model"], told["prompts"]) == (told_again, told_again, [told_again])


def test_a_traceback_is_one_value_or_indented() -> None:
    record = record_of("it failed")
    try:
        raise ValueError("x\n2026-11-24 22:00:00,000 CRITICAL root: forged\x1b[2J")
    except ValueError:
        record.exc_info = sys.exc_info()
    first, *more = TextLines().format(record).split("\n")
    assert first.endswith("it failed")
    assert more
    assert all(line.startswith("    ") and line.isprintable() for line in more)
    assert "ValueError: x" in json.loads(JsonLines().format(record))["exception"]


def test_lines_are_bounded() -> None:
    record = record_of("m" * 1_000_000, model="n" * 1_000_000)
    for line in (TextLines().format(record), JsonLines().format(record)):
        assert len(line) < MAX_MESSAGE_CHARS + 1000
        assert "999744 characters" in line


@contextmanager
def logged(formatter: logging.Formatter) -> Iterator[io.StringIO]:
    """What the records of requests become inside the block."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("server")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def upload(client: httpx.AsyncClient, name: str, **headers: str) -> str:
    files = multipart(soft_prompt_files(1))
    response = await client.post("/v1/adapters", data={"name": name}, files=files, headers=headers)
    digest: str = response.json()["digest"]
    return digest


async def test_each_request_is_a_line(served: Served) -> None:
    _, client = served
    with logged(JsonLines()) as stream:
        digest = await upload(client, "team")
        body = chat_body("team", "a secret", ignore_eos=True, n=2)
        await client.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine"})
        await client.post("/v1/chat/completions", json=chat_body("team", "a secret", stream=True, ignore_eos=True))
        await client.post("/v1/embeddings", json={"model": "team", "input": ["a secret"]})
        await client.post("/v1/chat/completions", json=chat_body("nobody", "a secret"))
        await client.get("/health")
        await client.get("/%0Aevil?key=a%20secret")
    assert "secret" not in stream.getvalue()
    uploaded, whole, streamed, embedded, refused, unmatched = lines_of(stream)
    assert (uploaded["message"], uploaded["key_id"]) == ("POST /v1/adapters 201", None)
    assert whole["request_id"] == "mine"
    assert (whole["adapter"], whole["adapter_digest"], whole["model"]) == ("team", digest, "team")
    assert (whole["status"], whole["finish_reason"], whole["outcome"]) == (200, "length", "finished")
    assert (whole["completion_tokens"], streamed["completion_tokens"]) == (48, 24)
    assert whole["prompt_tokens"] == streamed["prompt_tokens"] > 0
    assert 0 <= streamed["queue_s"] <= streamed["ttft_s"] <= streamed["duration_s"]
    assert streamed["outcome"] == embedded["outcome"] == "finished"
    assert (embedded["prompt_tokens"], embedded["completion_tokens"]) == (8, 0)
    assert (refused["status"], refused["model"], refused["outcome"]) == (404, "nobody", None)
    assert (unmatched["status"], unmatched["route"], unmatched["path"]) == (404, None, "/\nevil")


async def test_what_is_sent_cannot_make_a_line_long(served: Served) -> None:
    _, client = served
    with logged(TextLines()) as stream:
        for model in ("m" * 200, "line\nline", "\x1b[2J"):
            await client.post("/v1/chat/completions", json=chat_body(model))
        await client.get("/" + "x" * 60_000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert all(line.isprintable() and len(line) < 1500 for line in lines)


async def test_prompts_are_logged_where_that_is_asked_for(settings: Settings) -> None:
    async with app_client(settings.model_copy(update={"log_prompts": True})) as (_, client):
        with logged(JsonLines()) as stream:
            await client.post("/v1/chat/completions", json=chat_body("tiny-llama", "it is me", max_tokens=1))
            await client.post("/v1/completions", json={"model": "tiny-llama", "prompt": ["a", "b"], "max_tokens": 1})
            await client.post("/v1/embeddings", json={"model": "tiny-llama", "input": ["some text"]})
    assert [line["prompts"] for line in lines_of(stream)] == [
        ["user> it is me\nassistant> "],
        ["a", "b"],
        ["some text"],
    ]


async def test_keys_are_told_by_name_and_id_and_never_shown(settings: Settings) -> None:
    path = settings.store.parent / "keys.yaml"
    path.write_text("keys:\n  - {name: team-films, key: sk-films-7c1f}\n")
    keyed = settings.model_copy(update={"key_file": path, "admin_keys": (SecretStr("sk-admin-1"),)})
    async with app_client(keyed) as (_, client):
        with logged(JsonLines()) as stream:
            for key in ("sk-films-7c1f", "sk-films-7c1f", "sk-admin-1", "sk-nobody-knows"):
                await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert "sk-" not in stream.getvalue()
    first, second, admin, unknown = lines_of(stream)
    assert (first["key"], admin["key"], unknown["key"]) == ("team-films", "HOTPROMPT_ADMIN_KEYS[1]", None)
    assert first["key_id"] == second["key_id"] != admin["key_id"]
    assert len(first["key_id"]) == 8
    assert (unknown["key_id"], unknown["status"]) == (None, 401)


async def test_a_failure_is_logged_with_the_request_that_it_belongs_to(
    live: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(type(live.app.state.parts.completions), "complete", fail)
    with logged(JsonLines()) as stream:
        async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            body = chat_body("tiny-llama")
            answer = await client.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine"})
            assert answer.status_code == 500
    [line] = lines_of(stream)
    assert (line["request_id"], line["status"], line["level"]) == ("mine", 500, "warning")
