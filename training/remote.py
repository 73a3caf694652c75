"""Answers of a running server to held-out rows, by its chat completions. Knows no model and no metric."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from training.conversation import Conversation
from training.errors import DataError
from training.evaluate import MeasuredRow
from training.server_connection import ServerConnection

_AT_ONCE = 8
"""Requests that wait at the same time: the server answers them in one batch."""
_SPARE_TOKENS = 8
_MOST_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class RemoteModels:
    """The models of a running server."""

    connection: ServerConnection

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
        reply = self.connection.ask("POST", "/v1/chat/completions", json=body)
        try:
            text = str(reply["choices"][0]["message"]["content"] or "")
        except (LookupError, TypeError):
            raise self.connection.not_ours() from None
        return MeasuredRow(str(before[-1]["content"]), str(answer["content"]), text, None)


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
