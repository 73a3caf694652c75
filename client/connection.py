"""HTTP to a running server: address, key, and its errors as ours. Knows no command."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx

from client.errors import ServerRefused, ServerUnreachable
from client.safe_text import one_line

CONNECT_SECONDS = 5
ANSWER_SECONDS = 600


class Connection:
    """A server at `url`, which may end in /v1; with `api_key` where it asks for one."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        with self._reachable():
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def content(self, path: str) -> bytes:
        """The body of an answer as it comes. Raises ServerUnreachable, ServerRefused."""
        return self._answer("GET", path).content

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """The body of an answer. Raises ServerUnreachable, ServerRefused."""
        response = self._answer(method, path, **arguments)
        try:
            return response.json()
        except ValueError:
            raise self.not_ours() from None

    def not_ours(self) -> ServerRefused:
        """The error for an answer that no hotprompt server gives."""
        return ServerRefused(f"--url {self.url}: what answers there is no hotprompt server")

    @contextmanager
    def lines(self, path: str, *, body: dict[str, Any]) -> Iterator[Iterator[str]]:
        """The lines of a streamed answer, as they come. Raises ServerUnreachable, also in the middle; ServerRefused."""
        with self._reachable(), self._http.stream("POST", path, json=body) as response:
            if response.is_error:
                response.read()
                _raise_for_error(response)
            yield _lines_of(response.iter_text())

    def _answer(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with self._reachable():
            response = self._http.request(method, path, **arguments)
        _raise_for_error(response)
        return response

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise ServerUnreachable(f"--url {self.url}: no answer ({error})") from error


def _lines_of(pieces: Iterator[str]) -> Iterator[str]:
    """Lines as a server-sent stream has them. httpx's also end at U+2028 and the like, which are text here."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from (line.removesuffix("\r") for line in lines)
    if rest:
        yield rest


def _raise_for_error(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {response.status_code}"
    raise ServerRefused(
        one_line(str(message)), status=response.status_code, retry_after=response.headers.get("retry-after")
    )
