"""Answers of a running server to held-out rows, by its chat completions. Knows no model and no metric."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx

from training.conversation import Conversation
from training.errors import DataError, TrainingError
from training.evaluate import MeasuredRow

CONNECT_SECONDS = 5
ANSWER_SECONDS = 600
_AT_ONCE = 8
"""Requests that wait at the same time: the server answers them in one batch."""
_SPARE_TOKENS = 8
_MOST_TOKENS = 1024


class RemoteModels:
    """The models of a server at `url`, which may end in /v1; with `api_key` where it asks for one."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        try:
            self._http = httpx.Client(base_url=self._url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise TrainingError(f"--url {url}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def base_name(self) -> str:
        """The name of the base model. Raises TrainingError."""
        try:
            return next(str(card["id"]) for card in self._ask("GET", "/v1/models")["data"] if card["parent"] is None)
        except (LookupError, TypeError, StopIteration):
            raise self._not_ours() from None

    def measure(
        self,
        model: str,
        rows: Sequence[Conversation],
        *,
        max_new_tokens: int | None,
        advance: Callable[[int], None],
    ) -> list[MeasuredRow]:
        """Ask a model for the last answer of each row, greedily, eight at a time. There are no losses.

        Raises TrainingError, and DataError for rows whose answer is a call.
        """
        if problems := [f"{row.place}: its answer is a call; measure it locally" for row in rows if _calls(row)]:
            raise DataError(problems)
        limit = max_new_tokens or _most_tokens(rows)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            measured = []
            for row in pool.map(lambda row: self._measured(model, row, limit), rows):
                measured.append(row)
                advance(1)
        return measured

    def _measured(self, model: str, row: Conversation, max_tokens: int) -> MeasuredRow:
        *before, answer = row.messages
        body: dict[str, Any] = {
            "model": model,
            "messages": list(map(_on_the_wire, before)),
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        if row.tools:
            body |= {"tools": list(row.tools), "tool_choice": "none"}
        reply = self._ask("POST", "/v1/chat/completions", json=body)
        try:
            text = str(reply["choices"][0]["message"]["content"] or "")
        except (LookupError, TypeError):
            raise self._not_ours() from None
        return MeasuredRow(str(before[-1]["content"]), str(answer["content"]), text, None)

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._http.request(method, path, **arguments)
            content = response.json()
        except httpx.RequestError as error:
            raise TrainingError(f"--url {self._url}: no answer ({error})") from error
        except ValueError:
            raise self._not_ours() from None
        if response.is_error:
            try:
                message = str(content["error"]["message"])
            except (LookupError, TypeError):
                message = f"the server answered {response.status_code}"
            raise TrainingError(f"--url {self._url}: {message}")
        return content

    def _not_ours(self) -> TrainingError:
        return TrainingError(f"--url {self._url}: what answers there is no hotprompt server")


def _calls(row: Conversation) -> bool:
    return "tool_calls" in row.messages[-1]


def _most_tokens(rows: Sequence[Conversation]) -> int:
    """No token is shorter than a byte."""
    longest = max(len(str(row.messages[-1]["content"]).encode()) for row in rows)
    return min(longest + _SPARE_TOKENS, _MOST_TOKENS)


def _on_the_wire(message: Any) -> dict[str, Any]:
    """Calls as requests have them: their arguments are JSON text, and each has an id."""
    calls = [
        call
        | {
            "id": call.get("id") or f"call_{number}",
            "function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])},
        }
        for number, call in enumerate(message.get("tool_calls", ()))
    ]
    return dict(message) | ({"tool_calls": calls} if calls else {})
